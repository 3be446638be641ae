"""Ranking figures from binned scores, each between its worst and its best order within the bins.

The order of the scores within a bin is unknown. A figure is lowest where the normal pixels of each
bin come first and highest where the defective pixels do. In a bin of a single code the scores are
tied, and both values are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.errors import InputError

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """A figure that is known up to the order within bins."""

    low: float
    high: float

    @property
    def value(self) -> float:
        """The middle of the interval."""
        return (self.low + self.high) / 2

    @property
    def bound(self) -> float:
        """Largest distance of the exact figure from `value`."""
        return (self.high - self.low) / 2


class Figure(NamedTuple):
    """A figure and where its uncertainty comes from.

    Attributes:
        interval: Worst and best value.
        spread: Most that each bin adds to the distance between them (K,), highest bin first.
    """

    interval: Interval
    spread: Array


class Ranked:
    """Bins from the highest score to the lowest, of one sample of scores or of R samples.

    Args:
        counts: Normal, defective and weighted defective scores of each bin (3, K) or (3, R, K).
        is_tied: Whether all scores of a bin are equal (K,).

    Raises:
        InputError: If normal or defective scores are missing.
    """

    def __init__(self, counts: Array, is_tied: NDArray[np.bool_]) -> None:
        self.normal, self.defective, self.overlap = counts
        self.is_tied = is_tied
        ends = np.cumsum(counts, axis=-1)
        # Scores above each bin.
        self.false, self.true, self.covered = ends - counts
        self.num_normal, self.num_defective, self.num_regions = counts.sum(-1, keepdims=True)
        if not (self.num_normal.all() and self.num_defective.all()):
            raise InputError(
                f"Ranking metrics need both normal and anomalous labels, but got "
                f"{self.num_normal.min():.0f} normal and {self.num_defective.min():.0f} anomalous."
            )

    def figure(self, low: Array, high: Array, tied: Array) -> Figure:
        """Sum what each bin adds (K,) in the worst order, in the best order, and as one tie."""
        low, high = np.where(self.is_tied, tied, low), np.where(self.is_tied, tied, high)
        return Figure(Interval(low.sum(-1), high.sum(-1)), high - low)


def auroc(bins: Ranked) -> Figure:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    share = bins.normal / bins.num_normal / bins.num_defective
    low, high = share * bins.true, share * (bins.true + bins.defective)
    return bins.figure(low, high, (low + high) / 2)


def average_precision(bins: Ranked) -> Figure:
    """Average precision: the sum of recall steps times precision, as scikit-learn defines it.

    In the best order the positives of a bin are tied above its negatives. In the worst order they
    follow one by one below its negatives. Their precision (T + k) / (T + k + F) is then concave in
    k = 1..p, so its mean is at least the mean of its two ends.
    """
    true, false = bins.true + bins.defective, bins.false + bins.normal
    recall = bins.defective / bins.num_defective
    first = (bins.true + 1) / (bins.true + 1 + false)
    tied = true / np.maximum(true + false, 1)
    best = true / np.maximum(true + bins.false, 1)
    return bins.figure(recall * (first + tied) / 2, recall * best, recall * tied)


def f1_max(bins: Ranked) -> Figure:
    """Highest F1 over all thresholds."""
    true, false = bins.true + bins.defective, bins.false + bins.normal
    at_end = 2 * true / (bins.num_defective + true + false)
    best = 2 * true / (bins.num_defective + true + bins.false)
    low = at_end.max(-1)
    spread = np.where(bins.is_tied, 0, np.maximum(best - low[..., None], 0))
    return Figure(Interval(low, low + spread.max(-1)), spread)


def au_pro(bins: Ranked, *, fpr_limit: float) -> Figure:
    """Area under the per-region overlap curve up to a false-positive rate, divided by that rate.

    The curve is interpolated at the limit if scores are tied there.

    Raises:
        InputError: If the limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit must lie in (0, 1], but got {fpr_limit}.")
    room = fpr_limit * bins.num_normal
    width = np.clip(room - bins.false, 0, bins.normal)
    share = width / room / bins.num_regions
    part = width / np.maximum(bins.normal, 1)
    low, high = share * bins.covered, share * (bins.covered + bins.overlap)
    return bins.figure(low, high, low + part * (high - low) / 2)


def fpr_at_recall(bins: Ranked, *, recall: float) -> Figure:
    """Lowest false-positive rate of a threshold with at least that recall, of one sample."""
    needed = recall * bins.num_defective - _SLACK
    k = int(np.argmax(bins.true + bins.defective >= needed))
    low = bins.false[k] / bins.num_normal[0]
    high = (bins.false[k] + bins.normal[k]) / bins.num_normal[0]
    return _at(bins, k, low, high, tied=high)


def recall_at_fpr(bins: Ranked, *, fpr: float) -> Figure:
    """Highest recall of a threshold with at most that false-positive rate, of one sample."""
    exceeds = bins.false + bins.normal > fpr * bins.num_normal + _SLACK
    if not exceeds.any():
        return Figure(Interval(1.0, 1.0), np.zeros_like(bins.normal))
    k = int(np.argmax(exceeds))
    low = bins.true[k] / bins.num_defective[0]
    high = (bins.true[k] + bins.defective[k]) / bins.num_defective[0]
    return _at(bins, k, low, high, tied=low)


_SLACK = 1e-6
"""Part of a count, so that 0.95 of 20 is 19 in floating point too."""


def _at(bins: Ranked, k: int, low: float, high: float, *, tied: float) -> Figure:
    """Return an operating point that lies in bin k."""
    spread = np.zeros_like(bins.normal)
    if bins.is_tied[k]:
        low = high = tied
    spread[k] = high - low
    return Figure(Interval(float(low), float(high)), spread)


FPR_LIMIT = 0.3
"""False-positive rate up to which AU-PRO is integrated."""

PIXEL_FIGURES: dict[str, Callable[[Ranked], Figure]] = {
    "pixel_auroc": auroc,
    "pixel_ap": average_precision,
    "pixel_f1_max": f1_max,
    "aupro": partial(au_pro, fpr_limit=FPR_LIMIT),
    "aupro_0.05": partial(au_pro, fpr_limit=0.05),
    "aupro_0.01": partial(au_pro, fpr_limit=0.01),
    "pixel_fpr_at_recall_0.95": partial(fpr_at_recall, recall=0.95),
    "pixel_fpr_at_recall_0.99": partial(fpr_at_recall, recall=0.99),
    "pixel_recall_at_fpr_0.001": partial(recall_at_fpr, fpr=0.001),
    "pixel_recall_at_fpr_0.01": partial(recall_at_fpr, fpr=0.01),
}
"""Every pixel figure by its name in the results."""
