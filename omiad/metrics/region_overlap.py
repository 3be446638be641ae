"""Per-region overlap: each defect region counts the same, whatever its size (MVTec AD)."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from omiad.errors import InputError
from omiad.metrics.ranking import Ranking, area_up_to

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def region_weights(masks: Tensor) -> Tensor:
    """Weight each defective pixel by 1 / area of its region.

    With these weights the mean overlap over all regions is a weighted true-positive rate.

    Args:
        masks: Defective pixels (N, H, W), bool.

    Returns:
        Weights (N, H, W), float32; 0 where nothing is defective. Regions are 8-connected.

    Raises:
        InputError: If the masks are not (N, H, W).
    """
    if masks.ndim != 3:
        raise InputError(f"masks must be (N, H, W), but got shape {tuple(masks.shape)}.")
    pixels, weights = weigh_regions(masks.numpy())
    dense = np.zeros(masks.numel(), np.float32)
    dense[pixels] = weights
    return torch.from_numpy(dense).view(masks.shape)


def weigh_regions(masks: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the positions of defective pixels in flat masks (N, H, W), ascending, and weights."""
    pixels = np.flatnonzero(masks)
    weights = np.empty(len(pixels), np.float32)
    ends = np.searchsorted(pixels, np.arange(1, len(masks) + 1) * masks[:1].size)
    start = 0
    for mask, end in zip(masks, ends.tolist(), strict=True):
        if end > start:
            box = mask[_box(mask)]
            regions, _ = ndimage.label(box, structure=_EIGHT_CONNECTED)
            inside = regions[box]
            areas = np.bincount(inside).astype(np.float32)
            weights[start:end] = 1 / areas[inside]
            start = end
    return pixels, weights


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rectangle that holds all defective pixels of a mask (H, W)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def au_pro(scores: Tensor, masks: Tensor, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it.

    The false-positive rate is over all normal pixels of all images; every distinct score is a
    threshold.

    Args:
        scores: Anomaly maps (N, H, W).
        masks: Defective pixels (N, H, W), bool.
        fpr_limit: False-positive rate to integrate to.
    """
    return area_up_to(Ranking(scores, masks).counts(region_weights(masks)), fpr_limit)
