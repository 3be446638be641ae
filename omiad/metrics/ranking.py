"""Ranking figures from binned scores; the best and worst order within the bins give their bounds.

The order of the scores within a bin is unknown. A figure is lowest where the normal pixels of each
bin come first and highest where the defective pixels do. In a bin of a single code the scores are
tied, and both values are the same.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Figures = dict[str, float | None]
"""Figures by name, as fractions of 1; None where a figure is undefined."""


class Interval(NamedTuple):
    """The bounds of a figure whose order within bins is unknown."""

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
    """The worst and best value of a figure, and the most that each bin adds to their distance."""

    interval: Interval
    spread: Array  # (K,), highest bin first


class Ranked:
    """Bins from the highest score to the lowest, of one sample of scores or of R samples.

    Args:
        counts: Normal, defective and weighted defective scores of each bin (3, K) or (3, R, K);
            each sample has normal and defective scores.
        is_tied: Whether all scores of a bin are equal (K,); by default they are in every bin.
    """

    def __init__(self, counts: Array, is_tied: NDArray[np.bool_] | None = None) -> None:
        self.normal, self.defective, self.overlap = counts
        self.is_tied = np.ones(counts.shape[-1], np.bool_) if is_tied is None else is_tied
        # Scores above each bin, and down to its end.
        ends = np.cumsum(counts, axis=-1)
        self.false, self.true, self.covered = ends - counts
        self.false_after, self.true_after, _ = ends
        self.num_normal, self.num_defective, self.num_regions = counts.sum(-1, keepdims=True)

    def figure(self, low: Array, high: Array, tied: Array) -> Figure:
        """Sum what each bin adds (K,) in the worst order, in the best order, and as one tie."""
        low, high = np.where(self.is_tied, tied, low), np.where(self.is_tied, tied, high)
        return Figure(Interval(low.sum(-1), high.sum(-1)), high - low)

    def point(self, k: int, low: Array, high: Array, tied: Array) -> Figure:
        """Return a figure of one sample that bin k alone decides; arguments as of `figure`."""
        only = np.arange(low.shape[-1]) == k
        return self.figure(*(np.where(only, values, 0) for values in (low, high, tied)))


def auroc(bins: Ranked) -> Figure:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    share = bins.normal / bins.num_normal / bins.num_defective
    low, high = share * bins.true, share * bins.true_after
    return bins.figure(low, high, (low + high) / 2)


def average_precision(bins: Ranked) -> Figure:
    """Average precision: the sum of recall steps times precision, as scikit-learn defines it.

    In the best order the positives of a bin are tied above its negatives. In the worst order they
    follow one by one below its negatives. Their precision (T + k) / (T + k + F) is then concave in
    k = 1..p, so its mean is at least the mean of its two ends.
    """
    true, false = bins.true_after, bins.false_after
    recall = bins.defective / bins.num_defective
    first = (bins.true + 1) / (bins.true + 1 + false)
    tied = true / np.maximum(true + false, 1)
    best = true / np.maximum(true + bins.false, 1)
    return bins.figure(recall * (first + tied) / 2, recall * best, recall * tied)


def f1_max(bins: Ranked) -> Figure:
    """Highest F1 over all thresholds."""
    true = bins.true_after
    at_end = 2 * true / (bins.num_defective + true + bins.false_after)
    best = 2 * true / (bins.num_defective + true + bins.false)
    low = at_end.max(-1)
    spread = np.where(bins.is_tied, 0, np.maximum(best - low[..., None], 0))
    return Figure(Interval(low, low + spread.max(-1)), spread)


def au_pro(bins: Ranked, *, fpr_limit: float) -> Figure:
    """Area under the per-region overlap curve up to a false-positive rate, divided by that rate.

    The curve is interpolated at the limit, which lies in (0, 1], if scores are tied there.
    """
    room = fpr_limit * bins.num_normal
    width = np.clip(room - bins.false, 0, bins.normal)
    share = width / room / bins.num_regions
    part = width / np.maximum(bins.normal, 1)
    low, high = share * bins.covered, share * (bins.covered + bins.overlap)
    return bins.figure(low, high, low + part * (high - low) / 2)


_SLACK = 1e-6
"""Part of a count, so that 0.95 of 20 is 19 in floating point too."""


def fpr_at_recall(bins: Ranked, *, recall: float) -> Figure:
    """Lowest false-positive rate of a threshold with at least that recall, of one sample."""
    k = int(np.argmax(bins.true_after >= recall * bins.num_defective - _SLACK))
    low, high = bins.false / bins.num_normal, bins.false_after / bins.num_normal
    return bins.point(k, low, high, tied=high)


def recall_at_fpr(bins: Ranked, *, fpr: float) -> Figure:
    """Highest recall of a threshold with at most that false-positive rate, of one sample."""
    k = int(np.argmax(bins.false_after > fpr * bins.num_normal + _SLACK))
    low, high = bins.true / bins.num_defective, bins.true_after / bins.num_defective
    return bins.point(k, low, high, tied=low)


def fpr_at_num_anomalous(bins: Ranked) -> Figure:
    """False-positive rate if as many images are rejected as there are anomalous ones (Table 12)."""
    k = int(np.argmax(bins.true_after + bins.false_after >= bins.num_defective))
    fpr = bins.false_after / bins.num_normal
    return bins.point(k, fpr, fpr, tied=fpr)


FPR_LIMIT = 0.3
"""False-positive rate up to which AU-PRO is integrated."""

_CURVES = {"auroc": auroc, "ap": average_precision, "f1_max": f1_max}
_POINTS = {
    "fpr_at_recall_0.95": partial(fpr_at_recall, recall=0.95),
    "fpr_at_recall_0.99": partial(fpr_at_recall, recall=0.99),
    "recall_at_fpr_0.001": partial(recall_at_fpr, fpr=0.001),
    "recall_at_fpr_0.01": partial(recall_at_fpr, fpr=0.01),
}
IMAGE_FIGURES: dict[str, Callable[[Ranked], Figure]] = {
    **{f"image_{name}": figure for name, figure in _CURVES.items()},
    "image_fpr_at_num_anomalous": fpr_at_num_anomalous,
    **{f"image_{name}": figure for name, figure in _POINTS.items()},
}
PIXEL_FIGURES: dict[str, Callable[[Ranked], Figure]] = {
    **{f"pixel_{name}": figure for name, figure in _CURVES.items()},
    "aupro": partial(au_pro, fpr_limit=FPR_LIMIT),
    "aupro_0.05": partial(au_pro, fpr_limit=0.05),
    "aupro_0.01": partial(au_pro, fpr_limit=0.01),
    **{f"pixel_{name}": figure for name, figure in _POINTS.items()},
}
"""Every image and pixel figure by its name in the results."""
