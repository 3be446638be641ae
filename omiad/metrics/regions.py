"""Defect regions: each region counts the same, whatever its size (MVTec AD's AU-PRO)."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def weigh_regions(masks: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Weight each defective pixel by 1 / area of its region; regions are 8-connected.

    With these weights the mean overlap over all regions is a weighted true-positive rate.

    Args:
        masks: Defective pixels (N, H, W).

    Returns:
        Positions of the defective pixels in the flattened masks, ascending (M,), and the weight of
        each (M,).
    """
    pixels = np.flatnonzero(masks)
    weights = np.empty(len(pixels), np.float32)
    ends = np.searchsorted(pixels, np.arange(1, len(masks) + 1) * masks[:1].size)
    start = 0
    for mask, end in zip(masks, ends.tolist(), strict=True):
        if end > start:
            [box] = ndimage.find_objects(mask.astype(np.uint8))
            regions, _ = ndimage.label(mask[box], structure=_EIGHT_CONNECTED)
            inside = regions[mask[box]]
            weights[start:end] = 1 / np.bincount(inside).astype(np.float32)[inside]
            start = end
    return pixels, weights
