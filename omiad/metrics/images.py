"""Image figures: exact, from the score of every image."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.metrics.bounds import (
    Figure,
    Interval,
    Ranked,
    auroc,
    average_precision,
    f1_max,
    fpr_at_recall,
    recall_at_fpr,
)
from omiad.metrics.gathering import ListMetric


def fpr_at_num_anomalous(images: Ranked) -> Figure:
    """False-positive rate at the score ranked as high as there are anomalies (Table 12)."""
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
        index: Position of each in its split (N,), -1 where it was not given.
        score: Image scores (N,), float64.
        is_anomalous: Labels (N,).
        has_mask: Whether the pixels' labels are known (N,).
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # nobody searches images as a tuple
    score: NDArray[np.float64]
    is_anomalous: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]


def image_figures(score: NDArray[np.float64], is_anomalous: NDArray[np.bool_]) -> dict[str, float]:
    """Return all image figures; tied scores share one threshold.

    Args:
        score: Image scores (N,), of any range.
        is_anomalous: Labels (N,).

    Raises:
        InputError: If normal or anomalous images are missing.
    """
    distinct, rank = np.unique(-score, return_inverse=True)
    size = len(distinct)
    anomalous = np.bincount(rank, weights=is_anomalous, minlength=size)
    normal = np.bincount(rank, minlength=size) - anomalous
    ranked = Ranked(np.stack([normal, anomalous, anomalous]), np.ones(size, np.bool_))
    return {name: figure(ranked).interval.value for name, figure in IMAGE_FIGURES.items()}


class ImageDetection(ListMetric):
    """AUROC, average precision, F1-max and operating points of image scores."""

    index: list[Tensor]
    score: list[Tensor]
    is_anomalous: list[Tensor]
    has_mask: list[Tensor]
    images: Images

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_lists(*Images._fields)

    def update(
        self,
        score: Tensor,
        is_anomalous: Tensor,
        *,
        has_mask: Tensor | None = None,
        index: Tensor | None = None,
    ) -> None:
        """Add images; one whose index is already there does not count again.

        Args:
            score: Scores (B,), of any range.
            is_anomalous: Labels (B,), bool.
            has_mask: Whether the pixels' labels are known (B,), bool; by default they are.
            index: Position of each image in its split (B,); by default no image is repeated.
        """
        unknown = torch.full(score.shape, -1)
        known = torch.ones(score.shape, dtype=torch.bool)
        self.extend("index", (unknown if index is None else index.detach()).long().cpu())
        self.extend("score", score.detach().double().cpu())
        self.extend("is_anomalous", is_anomalous.bool().cpu())
        self.extend("has_mask", known if has_mask is None else has_mask.bool().cpu())

    def compute(self) -> dict[str, float | None]:
        """Return the image figures as fractions of 1, None where normals or anomalies lack.

        `images` then holds the images of all processes.
        """
        self.images = _once(
            Images(
                index=_joined(self.index, torch.int64),
                score=_joined(self.score, torch.float64),
                is_anomalous=_joined(self.is_anomalous, torch.bool),
                has_mask=_joined(self.has_mask, torch.bool),
            )
        )
        _, score, labels, _ = self.images
        if labels.all() or not labels.any():
            return dict.fromkeys(IMAGE_FIGURES)
        return dict(image_figures(score, labels))


def _joined(parts: list[Tensor], dtype: torch.dtype) -> NDArray[Any]:
    joined: NDArray[Any] = torch.cat([torch.empty(0, dtype=dtype), *parts]).numpy()
    return joined


def _once(images: Images) -> Images:
    """Sort by index and leave out repeated ones."""
    order = np.argsort(images.index, kind="stable")
    index = images.index[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (index[1:] != index[:-1]) | (index[1:] < 0)
    rows = order[is_new]
    return Images(
        index[is_new], images.score[rows], images.is_anomalous[rows], images.has_mask[rows]
    )
