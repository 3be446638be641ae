"""How much figures vary with the choice of test images: bootstrap over images, alone and paired.

Normal and anomalous images are drawn with replacement, as many of each as there are. The pixel
figures of a draw come from coarse counts of each image. Only their deviation from the same figure
of all images is used; it is added to the exact figure.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.detection import IMAGE_METRICS, METRICS, PIXEL_METRICS
from omiad.metrics.images import IMAGE_FIGURES
from omiad.metrics.ranking import PIXEL_FIGURES, Array, Figure, Ranked

LEVEL = 0.95
"""Share of the draws in an interval."""

_BLOCK = 2**18
"""Draws times images that are counted at once, 2 MB for each array."""


class ScoredImages(NamedTuple):
    """What resampling needs of the images of a category.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        score: Image scores (N,).
        is_anomalous: Labels (N,).
        has_mask: Whether the labels of the pixels are known (N,).
        counts: Normal, defective and weighted defective pixels per bin, lowest first (N, 3, K).
    """

    name: NDArray[np.str_]
    score: NDArray[np.float64]
    is_anomalous: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    counts: NDArray[np.float32]

    def sorted(self) -> "ScoredImages":
        """Return the images by name."""
        rows = np.argsort(self.name)
        return ScoredImages._make(column[rows] for column in self)


def draw(is_anomalous: NDArray[np.bool_], *, num: int, rng: np.random.Generator) -> Array:
    """Draw images with replacement within each class; how often each is drawn (num, N)."""
    times = np.zeros((num, len(is_anomalous)))
    for label in (False, True):
        rows = np.flatnonzero(is_anomalous == label)
        if len(rows):
            times[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), num)
    return times


def deviations(images: ScoredImages, times: Array) -> dict[str, Array]:
    """Return how much each metric changes in each draw (R,); undefined metrics are left out.

    Args:
        images: Images of one category.
        times: How often each image counts in each draw (R, N).
    """
    all_once = np.ones((1, times.shape[1]))
    blocks = np.array_split(times, min(len(times), 1 + times.size // _BLOCK))
    changes: dict[str, Array] = {}
    for part in (_image_metrics, _pixel_metrics):
        whole = part(images, all_once)
        drawn = [part(images, block) for block in blocks] if whole else []
        for name, value in whole.items():
            changes[name] = np.concatenate([row[name] for row in drawn]) - value
    return changes


def means(categories: Mapping[str, dict[str, Array]]) -> dict[str, dict[str, Array]]:
    """Add `mad` to the deviations of each category, and "mean", their mean over categories."""
    rows = {name: dict(row) for name, row in categories.items()}
    for row in rows.values():
        if len(row) == len(METRICS):
            row["mad"] = np.mean(list(row.values()), axis=0)
    mean = {}
    for key in (*METRICS, "mad"):
        values = [row[key] for row in rows.values() if key in row]
        if values:
            mean[key] = np.mean(values, axis=0)
    return {**rows, "mean": mean}


def interval(figure: float, changes: Array, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the interval around a figure that holds that share of the draws."""
    low, high = np.nanquantile(changes, [(1 - level) / 2, (1 + level) / 2])
    return float(figure + low), float(figure + high)


def _image_metrics(images: ScoredImages, times: Array) -> dict[str, Array]:
    if images.is_anomalous.all() or not images.is_anomalous.any():
        return {}
    order = np.argsort(-images.score, kind="stable")
    score, anomalous = images.score[order], images.is_anomalous[order]
    starts = np.flatnonzero(np.append(True, score[1:] != score[:-1]))
    counts = times[:, order] * np.stack([~anomalous, anomalous, anomalous])[:, None]
    tied = np.add.reduceat(counts, starts, axis=2)
    return {name: _values(IMAGE_FIGURES[name], tied) for name in IMAGE_METRICS}


def _pixel_metrics(images: ScoredImages, times: Array) -> dict[str, Array]:
    if not images.has_mask.all() or not images.counts[:, 1].any():
        return {}
    counts = times.astype(np.float32) @ images.counts.reshape(len(times[0]), -1)
    stacked = counts.reshape(len(times), 3, -1).swapaxes(0, 1)[..., ::-1].astype(np.float64)
    return {name: _values(PIXEL_FIGURES[name], stacked) for name in PIXEL_METRICS}


def _values(figure: Callable[[Ranked], Figure], counts: Array) -> Array:
    """Return a figure of each draw from its counts (3, R, K), NaN if either class is missing."""
    values = np.full(counts.shape[1], np.nan)
    rows = (counts[:2].sum(-1) > 0).all(0)
    ranked = Ranked(counts[:, rows], np.ones(counts.shape[-1], np.bool_))
    values[rows] = figure(ranked).interval.value
    return values
