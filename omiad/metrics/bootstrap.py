"""How much figures vary with the choice of test images: bootstrap over images of one or two runs.

Normal and anomalous images are drawn with replacement, as many of each as there are. The pixel
figures of a draw come from coarse counts of each image. Only their deviation from the same figure
of all images is used; it is added to the exact figure.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.detection import IMAGE_METRICS, METRICS, PIXEL_METRICS
from omiad.metrics.ranking import IMAGE_FIGURES, PIXEL_FIGURES, Array, Figure, Ranked

LEVEL = 0.95
"""Share of the draws in an interval."""

_BLOCK = 2**18
"""Draws times images that are counted at once, 2 MB for each array."""


class ScoredImages(NamedTuple):
    """What resampling needs of the N images of a category, see `Images`.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        counts: Normal, defective and weighted defective pixels per bin, lowest first (N, 3, K).
    """

    name: NDArray[np.str_]
    score: NDArray[np.float64]
    is_anomalous: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    counts: NDArray[np.float32]


def draw(is_anomalous: NDArray[np.bool_], *, num: int, rng: np.random.Generator) -> Array:
    """Draw images with replacement within each class; return how often each is drawn (num, N)."""
    times = np.zeros((num, len(is_anomalous)))
    for label in (False, True):
        rows = np.flatnonzero(is_anomalous == label)
        if len(rows):
            times[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), num)
    return times


def deviations(images: ScoredImages, times: Array) -> dict[str, Array]:
    """Return how much each metric of a category changes in each draw (R,), if it is defined.

    In draw r image n counts `times[r, n]` times.
    """
    blocks = np.array_split(times, min(len(times), 1 + times.size // _BLOCK))
    drawn = [_metrics(images, block) for block in blocks]
    whole = _metrics(images, np.ones((1, times.shape[1])))
    return {
        name: np.concatenate([row[name] for row in drawn]) - value for name, value in whole.items()
    }


def means(categories: Mapping[str, dict[str, Array]]) -> dict[str | None, dict[str, Array]]:
    """Add `mad` to the deviations of each category, and under None their mean over categories."""
    rows: dict[str | None, dict[str, Array]] = {name: dict(row) for name, row in categories.items()}
    for row in rows.values():
        if len(row) == len(METRICS):
            row["mad"] = np.mean(list(row.values()), axis=0)
    mean = {}
    for key in (*METRICS, "mad"):
        values = [row[key] for row in rows.values() if key in row]
        if values:
            mean[key] = np.mean(values, axis=0)
    return {**rows, None: mean}


def interval(figure: float, changes: Array) -> tuple[float, float]:
    """Return the interval around a figure that holds `LEVEL` of the draws."""
    low, high = np.nanquantile(changes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(figure + low), float(figure + high)


def _metrics(images: ScoredImages, times: Array) -> dict[str, Array]:
    """Return each metric of each draw (R,), if all images together define the metric."""
    figures: dict[str, Array] = {}
    anomalous = images.is_anomalous
    if anomalous.any() and not anomalous.all():
        order = np.argsort(-images.score, kind="stable")
        score, anomalous = images.score[order], anomalous[order]
        starts = np.flatnonzero(np.append(True, score[1:] != score[:-1]))
        counts = times[:, order] * np.stack([~anomalous, anomalous, anomalous])[:, None]
        tied = np.add.reduceat(counts, starts, axis=2)
        figures |= {name: _values(IMAGE_FIGURES[name], tied) for name in IMAGE_METRICS}
    if images.has_mask.all() and images.counts[:, 1].any():
        drawn = times.astype(np.float32) @ images.counts.reshape(len(times[0]), -1)
        bins = drawn.reshape(len(times), 3, -1).swapaxes(0, 1)[..., ::-1].astype(np.float64)
        figures |= {name: _values(PIXEL_FIGURES[name], bins) for name in PIXEL_METRICS}
    return figures


def _values(figure: Callable[[Ranked], Figure], counts: Array) -> Array:
    """Return a figure of each draw from its counts (3, R, K), NaN if either class is missing."""
    values = np.full(counts.shape[1], np.nan)
    rows = (counts[:2].sum(-1) > 0).all(0)
    values[rows] = figure(Ranked(counts[:, rows])).interval.value
    return values
