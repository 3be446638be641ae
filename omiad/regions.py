"""Regions of a defect mask that are too small for the size at which masks are compared."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

DEFECTIVE, UNKNOWN = 1, 2
"""Labels of pixels, uint8; 0 is normal. An unknown pixel does not count at all."""

Place = Callable[[NDArray[np.floating[Any]], int], NDArray[np.int64]]
"""Takes points of an axis of that many pixels, and returns the resized pixel of each point."""

_EDGE = 1e-6
"""Part of a pixel: a point that is just inside the edge."""


def pixel_labels(mask: NDArray[np.bool_], resized: Tensor, place: Place) -> tuple[Tensor, int]:
    """Label the pixels of a resized mask, and count the regions that vanished from it.

    A region vanishes if none of the pixels that it lies in is defective in the resized mask. Its
    pixels become unknown, because a method that finds the defect there must not lose for it.

    Args:
        mask: Defective pixels (H, W) of the photograph.
        resized: The same as the protocol resizes them (h, w), bool. Parts may be cut off.
        place: Where a point of the photograph lies in the resized mask.

    Returns:
        Labels (h, w), uint8, and the number of vanished regions.
    """
    labels = resized.to(torch.uint8)
    if not mask.any():
        return labels, 0
    [box] = ndimage.find_objects(mask.astype(np.uint8))
    regions, count = ndimage.label(mask[box], structure=np.ones((3, 3), np.bool_))
    axes = [np.arange(part.start, part.stop) for part in box]
    middles = [place(axis + 0.5, size) for axis, size in zip(axes, mask.shape, strict=True)]
    is_seen = np.zeros(count + 1, np.bool_)
    is_seen[regions[_taken(resized.numpy(), middles)]] = True
    is_seen[0] = True
    if is_seen.all():
        return labels, 0
    found = np.nonzero(~is_seen[regions])
    points = [axis[each] for axis, each in zip(axes, found, strict=True)]
    for shift in product((_EDGE, 0.5, 1 - _EDGE), repeat=2):
        placed = [
            place(point + offset, size)
            for point, offset, size in zip(points, shift, mask.shape, strict=True)
        ]
        inside = np.all([(p >= 0) & (p < n) for p, n in zip(placed, labels.shape, strict=True)], 0)
        rows, columns = (torch.from_numpy(each[inside]) for each in placed)
        labels[rows, columns] = labels[rows, columns].where(resized[rows, columns], UNKNOWN)
    return labels, int((~is_seen).sum())


def _taken(resized: NDArray[np.bool_], middles: list[NDArray[np.int64]]) -> NDArray[Any]:
    """Return the resized mask at the pixels of the photograph, False where that was cut off."""
    padded = np.pad(resized, 1)
    rows, columns = (
        np.clip(at, -1, size) + 1 for at, size in zip(middles, resized.shape, strict=True)
    )
    return padded[rows][:, columns]
