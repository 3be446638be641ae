"""Histograms of scores of any sign and range: bounded, mergeable, blind to order and batches.

A float32 score is first numbered by a code that keeps the order of all float32 numbers. Bins are
2**shift neighbouring codes; empty bins take no room. The shift is the smallest at which all scores
fall into at most `max_bins` bins, so it depends on the scores alone, and a narrow band of scores is
resolved as finely beside an outlier as without one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_BINS = 2**17
"""Bins of a category: 28 bytes each, 3.7 MB."""


class Tally(NamedTuple):
    """Counts of scores in the bins that hold any.

    Attributes:
        shift: Binary logarithm of the number of codes in a bin.
        keys: Number of each bin, code >> shift, ascending (K,), int32.
        counts: Normal pixels, defective pixels, and defective pixels each weighted by 1 / area of
            its region (3, K), float64.
    """

    shift: int
    keys: NDArray[np.int32]
    counts: NDArray[np.float64]

    @classmethod
    def empty(cls) -> "Tally":
        """Return the tally of no scores."""
        return cls(0, np.empty(0, np.int32), np.empty((3, 0)))


def score_codes(scores: Tensor) -> NDArray[np.int32]:
    """Number scores (any shape) in their order: a < b exactly where code(a) < code(b).

    The bits of a positive float32 ascend with it, those of a negative one descend.
    """
    floats = scores.detach().to("cpu", torch.float32).contiguous().numpy()
    bits: NDArray[np.int32] = floats.view(np.int32)
    if bits.size == 0 or bits.min() >= 0:
        return bits
    bits = (floats + np.float32(0)).view(np.int32)  # -0.0 is 0.0
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def scores_of(codes: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the scores of codes: the inverse of `score_codes`."""
    return (codes ^ ((codes >> 31) & np.int32(0x7FFFFFFF))).view(np.float32)


def tally(
    codes: NDArray[np.int32],
    defective: NDArray[np.intp],
    weights: NDArray[np.float32],
    *,
    shift: int = 0,
    max_bins: int = MAX_BINS,
) -> Tally:
    """Count scores in bins as fine as fit.

    Args:
        codes: Codes of the scores (N,).
        defective: Positions of the defective pixels among them (M,).
        weights: 1 / area of the region of each of those (M,).
        shift: Binary logarithm of the least number of codes in a bin.
        max_bins: Most bins that may hold scores.
    """
    if not codes.size:
        return Tally.empty()
    low, high = (int(code) >> shift for code in torch.aminmax(torch.from_numpy(codes)))
    if high - low > 4 * max_bins:
        # A part of the scores never needs wider bins than all of them.
        part = codes[:: 1 + codes.size // (4 * max_bins)] >> np.int32(shift)
        more = _shift_for(np.sort(part), max_bins)
        shift, low, high = shift + more, low >> more, high >> more
    keys = codes >> np.int32(shift)
    keys_defective = keys[defective]
    distinct, total = _count(keys, low, high)
    counts = np.zeros((3, len(distinct)))
    if len(defective):
        bins = np.searchsorted(distinct, keys_defective)
        counts[1] = np.bincount(bins, minlength=len(distinct))
        counts[2] = np.bincount(bins, weights=weights, minlength=len(distinct))
    counts[0] = total - counts[1]
    return merge([Tally(shift, distinct, counts)], max_bins=max_bins)


def merge(tallies: Sequence[Tally], *, max_bins: int = MAX_BINS) -> Tally:
    """Add tallies up, in bins as fine as fit; the same whatever their order and grouping."""
    if len(tallies) == 1 and len(tallies[0].keys) <= max_bins:
        return tallies[0]
    shift = max((each.shift for each in tallies), default=0)
    keys = np.concatenate(
        [Tally.empty().keys, *(each.keys >> np.int32(shift - each.shift) for each in tallies)]
    )
    counts = np.concatenate([Tally.empty().counts, *(each.counts for each in tallies)], axis=1)
    if len(tallies) > 1:
        order = np.argsort(keys, kind="stable")  # a merge of sorted runs
        keys, counts = keys[order], np.take(counts, order, axis=1)
    more = _shift_for(keys, max_bins)
    keys = keys >> np.int32(more)
    is_first = np.ones(len(keys), np.bool_)
    is_first[1:] = keys[1:] != keys[:-1]
    if not is_first.all():
        bins = np.cumsum(is_first) - 1
        counts = np.stack([np.bincount(bins, weights=row) for row in counts])
    return Tally(shift + more, keys[is_first], counts)


class Bins(NamedTuple):
    """Bins of any width, in which some were counted anew in finer ones.

    Attributes:
        start: First code of each bin, ascending (K,), int64.
        shift: Binary logarithm of the number of its codes (K,), int64.
        counts: As of a tally (3, K).
    """

    start: NDArray[np.int64]
    shift: NDArray[np.int64]
    counts: NDArray[np.float64]

    @classmethod
    def of(cls, tally: Tally) -> "Bins":
        """Take a tally's bins."""
        shift = np.full(len(tally.keys), tally.shift, np.int64)
        return cls(tally.keys.astype(np.int64) << tally.shift, shift, tally.counts)

    def take(self, rows: NDArray[np.bool_]) -> "Bins":
        """Return some of the bins."""
        return Bins(self.start[rows], self.shift[rows], self.counts[:, rows])

    def contain(self, codes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which codes (N,) fall into a bin."""
        row = np.searchsorted(self.start, codes, side="right") - 1
        end = self.start + (1 << self.shift)
        return (row >= 0) & (codes < end[row])

    def are_split_by(self, finer: "Bins") -> bool:
        """Return whether finer bins within these hold the same normal and defective pixels."""
        row = np.searchsorted(self.start, finer.start, side="right") - 1
        size = len(self.start)
        counts = [np.bincount(row, weights, minlength=size) for weights in finer.counts[:2]]
        return np.array_equal(counts, self.counts[:2])

    def with_finer(self, rows: NDArray[np.bool_], finer: "Bins") -> "Bins":
        """Return the bins with some of them replaced by finer ones."""
        start, shift = (
            np.concatenate(pair) for pair in zip(self.take(~rows)[:2], finer[:2], strict=True)
        )
        counts = np.concatenate([self.counts[:, ~rows], finer.counts], axis=1)
        order = np.argsort(start)
        return Bins(start[order], shift[order], counts[:, order])


def _shift_for(keys: NDArray[np.int32], max_bins: int) -> int:
    """Return the smallest shift that leaves at most that many distinct keys, which are sorted."""
    if len(keys) <= max_bins:
        return 0
    # Neighbours are told apart up to the highest bit in which they differ.
    changes = (keys[1:] ^ keys[:-1]).view(np.uint32)
    return int(np.partition(changes, -max_bins)[-max_bins]).bit_length()


def _count(
    keys: NDArray[np.int32], low: int, high: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the distinct keys, ascending, and how often each occurs; may use up the keys."""
    if high - low > 4 * keys.size:
        distinct, counts = np.unique(keys, return_counts=True)
        return distinct, counts
    keys -= np.int32(low)
    counts = torch.bincount(torch.from_numpy(keys)).numpy()
    is_there = counts != 0
    return np.flatnonzero(is_there).astype(np.int32) + np.int32(low), counts[is_there]
