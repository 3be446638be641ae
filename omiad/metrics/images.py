"""Exact image figures from the score of every image, also for several views of one part."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.ranking import IMAGE_FIGURES, Figures, Ranked
from omiad.types import Sample


class Images(NamedTuple):
    """Score and labels of the images of a category, by ascending index.

    Attributes:
        index: Position of each image in its split (N,).
        score: Image scores (N,), float64.
        is_anomalous: Labels (N,).
        has_mask: Whether the labels of the pixels are known (N,).
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # shadows tuple.index, which is unused
    score: NDArray[np.float64]
    is_anomalous: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: Mapping[int, tuple[float, bool, bool]]) -> "Images":
        """Sort images by index; each has a score, a label and whether it has a mask."""
        columns = zip(*((i, *rows[i]) for i in sorted(rows)), strict=True) if rows else [()] * 4
        dtypes = (np.int64, np.float64, np.bool_, np.bool_)
        return cls(*(np.array(*column) for column in zip(columns, dtypes, strict=True)))


def image_figures(score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]) -> Figures:
    """Return all figures of images (N,), None if either class is missing.

    Scores may have any range, and tied scores share one threshold.
    """
    if is_anomalous.all() or not is_anomalous.any():
        return dict.fromkeys(IMAGE_FIGURES)
    _, rank = np.unique(-score, return_inverse=True)
    anomalous = np.bincount(rank, weights=is_anomalous)
    ranked = Ranked(np.stack([np.bincount(rank) - anomalous, anomalous, anomalous]))
    return {name: float(figure(ranked).interval.value) for name, figure in IMAGE_FIGURES.items()}


def view_figures(
    views: Sequence[Sample], score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]
) -> dict[str, Figures]:
    """Return figures of samples that N views show from several sides (Real-IAD).

    They are those of samples ("sample") and of each view ("C1", ...) with both classes; there are
    none if an image belongs to no sample. A sample scores as high as its highest view and is
    anomalous if one of its views is.
    """
    groups: dict[str, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, view in enumerate(views):
        if view.sample_id is None or view.view is None:
            return {}
        groups["sample"][view.sample_id].append(row)
        groups[f"C{view.view}"][row].append(row)
    figures = {}
    for key in sorted(groups):
        scores = np.array([score[rows].max() for rows in groups[key].values()])
        labels = np.array([is_anomalous[rows].any() for rows in groups[key].values()])
        if labels.any() and not labels.all():
            figures[key] = image_figures(scores, labels)
    return figures
