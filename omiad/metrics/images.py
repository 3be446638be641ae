"""Image figures: exact, from the score of every image; of views together as of each by itself."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.ranking import (
    Figure,
    Interval,
    Ranked,
    auroc,
    average_precision,
    f1_max,
    fpr_at_recall,
    recall_at_fpr,
)
from omiad.types import Sample


def fpr_at_num_anomalous(images: Ranked) -> Figure:
    """False-positive rate if as many images are rejected as are anomalous (Table 12)."""
    ranked = images.true + images.defective + images.false + images.normal
    k = int(np.argmax(ranked >= images.num_defective))
    fpr = float((images.false[k] + images.normal[k]) / images.num_normal[0])
    return Figure(Interval(fpr, fpr), np.zeros_like(images.normal))


IMAGE_FIGURES: dict[str, Callable[[Ranked], Figure]] = {
    "image_auroc": auroc,
    "image_ap": average_precision,
    "image_f1_max": f1_max,
    "image_fpr_at_num_anomalous": fpr_at_num_anomalous,
    "image_fpr_at_recall_0.95": partial(fpr_at_recall, recall=0.95),
    "image_fpr_at_recall_0.99": partial(fpr_at_recall, recall=0.99),
    "image_recall_at_fpr_0.001": partial(recall_at_fpr, fpr=0.001),
    "image_recall_at_fpr_0.01": partial(recall_at_fpr, fpr=0.01),
}
"""Every image figure by its name in the results."""


class Images(NamedTuple):
    """What is known of the images of a category, by ascending index.

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
        """Sort images, which are score, label and whether there is a mask, by their index."""
        index = sorted(rows)
        columns = list(zip(*(rows[i] for i in index), strict=True)) or [(), (), ()]
        return cls(
            np.array(index, np.int64),
            np.array(columns[0], np.float64),
            np.array(columns[1], np.bool_),
            np.array(columns[2], np.bool_),
        )


def image_figures(
    score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Return all image figures as fractions of 1, None if either class is missing.

    Tied scores share one threshold.

    Args:
        score: Image scores (N,), of any range.
        is_anomalous: Labels (N,).
    """
    if is_anomalous.all() or not is_anomalous.any():
        return dict.fromkeys(IMAGE_FIGURES)
    distinct, rank = np.unique(-score, return_inverse=True)
    size = len(distinct)
    anomalous = np.bincount(rank, weights=is_anomalous, minlength=size)
    normal = np.bincount(rank, minlength=size) - anomalous
    ranked = Ranked(np.stack([normal, anomalous, anomalous]), np.ones(size, np.bool_))
    return {name: float(figure(ranked).interval.value) for name, figure in IMAGE_FIGURES.items()}


SAMPLE = "sample"
"""Key of the figures of samples, next to those of each view."""


def view_figures(
    views: Sequence[Sample], score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]
) -> dict[str, dict[str, float | None]]:
    """Return the image figures of samples that are photographed from several sides (Real-IAD).

    A sample scores as high as its highest view and is anomalous if one of its views is.

    Args:
        views: The images (N).
        score: Image scores (N,).
        is_anomalous: Labels (N,).

    Returns:
        Figures of samples ("sample") and of each view ("C1", ...) with both classes; none if an
        image belongs to no sample.
    """
    groups: dict[str, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, view in enumerate(views):
        if view.sample_id is None or view.view is None:
            return {}
        groups[SAMPLE][view.sample_id].append(row)
        groups[f"C{view.view}"][row].append(row)
    figures = {}
    for key in sorted(groups):
        scores = np.array([score[rows].max() for rows in groups[key].values()])
        labels = np.array([is_anomalous[rows].any() for rows in groups[key].values()])
        if labels.any() and not labels.all():
            figures[key] = image_figures(scores, labels)
    return figures
