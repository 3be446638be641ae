"""Histograms of scores of any sign and range: bounded, mergeable, independent of order and batches.

The code of a float32 score is an integer in the order of all float32 numbers. A bin holds 2**shift
neighbouring codes, and empty bins take no memory. The shift is the smallest at which all scores
fall into at most `max_bins` bins. The shift therefore depends on the scores alone, and an outlier
does not widen the bins of a narrow band of scores.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from omiad.regions import DEFECTIVE, UNKNOWN

MAX_BINS = 2**17
"""Bins of a category: 28 bytes each, 3.7 MB."""


class Pixels(NamedTuple):
    """Scores of pixels to count."""

    codes: NDArray[np.int32]  # their codes (N,)
    defective: NDArray[np.intp]  # the positions of the defective pixels, ascending (M,)
    weights: NDArray[np.float32]  # 1 / area of the region of each defective pixel (M,)
    unknown: NDArray[np.intp] = np.empty(0, np.intp)  # positions that do not count, ascending

    @classmethod
    def of(cls, codes: NDArray[np.int32], labels: NDArray[np.bool_ | np.uint8]) -> "Pixels":
        """Weight each region of labels (B, H, W) the same, as MVTec AD's AU-PRO does.

        With these weights the mean overlap over all regions is a weighted true-positive rate.
        Pixels that touch at a corner belong to one region. `Labels.masks` explains the labels.
        """
        masks = labels == DEFECTIVE
        weights = [np.empty(0, np.float32)]
        for mask in masks[masks.any((1, 2))]:
            [box] = ndimage.find_objects(mask.astype(np.uint8))
            regions, _ = ndimage.label(mask[box], structure=np.ones((3, 3), np.bool_))
            inside = regions[mask[box]]
            weights.append(1 / np.bincount(inside).astype(np.float32)[inside])
        unknown = np.flatnonzero(labels == UNKNOWN)
        return cls(codes.ravel(), np.flatnonzero(masks), np.concatenate(weights), unknown)

    def part(self, start: int, size: int) -> "Pixels":
        """Return some pixels in a row."""
        first, last = np.searchsorted(self.defective, [start, start + size])
        codes, inside = self.codes[start : start + size], slice(first, last)
        unknown = self.unknown[slice(*np.searchsorted(self.unknown, [start, start + size]))]
        return Pixels(codes, self.defective[inside] - start, self.weights[inside], unknown - start)

    def take(self, rows: NDArray[np.bool_]) -> "Pixels":
        """Return the pixels that are picked (N,) and known."""
        if len(self.unknown):
            rows = rows.copy()
            rows[self.unknown] = False
        kept = rows[self.defective]
        position = np.cumsum(rows) - 1
        return Pixels(self.codes[rows], position[self.defective[kept]], self.weights[kept])


class Tally(NamedTuple):
    """Counts of scores in the bins that are not empty; by default of no scores.

    Attributes:
        shift: Binary logarithm of the number of codes in a bin.
        keys: Number of each bin, code >> shift, ascending (K,), int32.
        counts: Normal pixels, defective pixels, and defective pixels each weighted by 1 / area of
            its region (3, K), float64.
    """

    shift: int = 0
    keys: NDArray[np.int32] = np.empty(0, np.int32)
    counts: NDArray[np.float64] = np.empty((3, 0))

    def take(self, rows: NDArray[np.bool_]) -> "Tally":
        """Return some of the bins."""
        return Tally(self.shift, self.keys[rows], self.counts[:, rows])

    def contains(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which codes (N,) fall into a bin."""
        keys = codes >> np.int32(self.shift)
        row = np.searchsorted(self.keys, keys)
        found: NDArray[np.bool_] = self.keys[np.minimum(row, len(self.keys) - 1)] == keys
        return found

    def is_split_by(self, finer: "Tally") -> bool:
        """Return whether finer bins within these bins count the same pixels."""
        keys = finer.keys >> np.int32(self.shift - finer.shift)
        _, keys, counts = _summed(self.shift, keys, finer.counts)
        return np.array_equal(keys, self.keys) and np.array_equal(counts[:2], self.counts[:2])


class Bins(NamedTuple):
    """Bins of different widths, from the lowest."""

    start: NDArray[np.int64]  # the first code of each (K,)
    is_tied: NDArray[np.bool_]  # whether it holds a single code, so that its scores are equal (K,)
    counts: NDArray[np.float64]  # as in a tally (3, K)

    @classmethod
    def of(cls, *tallies: Tally) -> "Bins":
        """Combine the bins of tallies that share no code."""
        start = np.concatenate([each.keys.astype(np.int64) << each.shift for each in tallies])
        is_tied = np.concatenate([np.full(len(each.keys), each.shift == 0) for each in tallies])
        counts = np.concatenate([each.counts for each in tallies], axis=1)
        order = np.argsort(start)
        return cls(start[order], is_tied[order], counts[:, order])


def score_codes(scores: Tensor) -> NDArray[np.int32]:
    """Return integer codes in the order of the scores (any shape): a < b if code(a) < code(b).

    The bits of a positive float32 ascend with it, and those of a negative float32 descend.
    """
    floats = scores.detach().to("cpu", torch.float32).contiguous().numpy()
    bits: NDArray[np.int32] = floats.view(np.int32)
    if bits.size == 0 or bits.min() >= 0:
        return bits
    bits = (floats + np.float32(0)).view(np.int32)  # -0.0 becomes 0.0
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def scores_of(codes: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the scores of codes: the inverse of `score_codes`."""
    return (codes ^ ((codes >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def tally(pixels: Pixels, *, shift: int = 0, max_bins: int = MAX_BINS) -> Tally:
    """Count pixels in the narrowest bins of at least 2**shift codes that `max_bins` allows."""
    if len(pixels.unknown):
        pixels = pixels.take(np.ones(len(pixels.codes), np.bool_))
    codes = pixels.codes
    if not codes.size:
        return Tally()
    low, high = (int(code) >> shift for code in torch.aminmax(torch.from_numpy(codes)))
    if high - low > 4 * max_bins:
        # A part of the scores never needs wider bins than all of them.
        part = codes[:: 1 + codes.size // (4 * max_bins)] >> np.int32(shift)
        more = _shift_for(np.sort(part), max_bins)
        shift, low, high = shift + more, low >> more, high >> more
    keys = codes >> np.int32(shift)
    keys_defective = keys[pixels.defective]
    if high - low > 4 * keys.size:
        distinct, total = np.unique(keys, return_counts=True)
    else:
        keys -= np.int32(low)
        total = torch.bincount(torch.from_numpy(keys)).numpy()
        distinct = np.flatnonzero(total).astype(np.int32) + np.int32(low)
        total = total[total != 0]
    counts = np.zeros((3, len(distinct)))
    if len(keys_defective):
        bins = np.searchsorted(distinct, keys_defective)
        counts[1] = np.bincount(bins, minlength=len(distinct))
        counts[2] = np.bincount(bins, weights=pixels.weights, minlength=len(distinct))
    counts[0] = total - counts[1]
    return merge([Tally(shift, distinct, counts)], max_bins=max_bins)


def merge(tallies: Sequence[Tally], *, max_bins: int = MAX_BINS) -> Tally:
    """Add tallies in the narrowest bins that `max_bins` allows; their order does not matter."""
    if len(tallies) == 1 and len(tallies[0].keys) <= max_bins:
        return tallies[0]
    shift = max(each.shift for each in tallies)
    keys = np.concatenate([each.keys >> np.int32(shift - each.shift) for each in tallies])
    counts = np.concatenate([each.counts for each in tallies], axis=1)
    if len(tallies) > 1:
        order = np.argsort(keys, kind="stable")  # merges sorted runs
        keys, counts = keys[order], np.take(counts, order, axis=1)
    more = _shift_for(keys, max_bins)
    return _summed(shift + more, keys >> np.int32(more), counts)


def _summed(shift: int, keys: NDArray[np.int32], counts: NDArray[np.float64]) -> Tally:
    """Add up the counts (3, K) of equal keys (K,), which are ascending."""
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = keys[1:] != keys[:-1]
    if not is_first.all():
        bins = np.cumsum(is_first) - 1
        counts = np.stack([np.bincount(bins, weights=row) for row in counts])
    return Tally(shift, keys[is_first], counts)


def _shift_for(keys: NDArray[np.int32], max_bins: int) -> int:
    """Return the smallest shift that leaves at most `max_bins` distinct keys (ascending)."""
    if len(keys) <= max_bins:
        return 0
    # Neighbours stay distinct up to the highest bit in which they differ.
    changes = (keys[1:] ^ keys[:-1]).view(np.uint32)
    return int(np.partition(changes, -max_bins)[-max_bins]).bit_length()
