"""Exact ranking metrics from raw scores of any sign and range.

Scores are only ever compared: no sigmoid, no scaling, no bins. Tied scores share one threshold.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from omiad.errors import InputError


class RankedCounts(NamedTuple):
    """Cumulative counts at each distinct threshold, from the highest score to the lowest.

    Attributes:
        true_positives: Weight of positives at or above the threshold, (K,), float64.
        false_positives: Number of negatives at or above the threshold, (K,), float64.
    """

    true_positives: Tensor
    false_positives: Tensor


class Ranking:
    """Scores sorted once, for every metric that needs their order.

    Args:
        scores: Scores (N,) or of any shape, higher is more anomalous.
        labels: Whether each is anomalous, like the scores, bool.

    Raises:
        InputError: If scores and labels differ in shape, there are no scores, one is not finite, or
            only one class is present.
    """

    def __init__(self, scores: Tensor, labels: Tensor) -> None:
        if labels.shape != scores.shape:
            raise InputError(
                f"Ranking metrics need a label for each score, but got {tuple(labels.shape)} for "
                f"{tuple(scores.shape)}."
            )
        scores, labels = scores.flatten(), labels.flatten()
        if scores.numel() == 0:
            raise InputError("Ranking metrics need at least one score, but got none.")
        if not torch.isfinite(scores).all():
            raise InputError("Ranking metrics need finite scores, but some are NaN or infinite.")
        if labels.all() or not labels.any():
            raise InputError(
                f"Ranking metrics need both normal and anomalous labels, but all "
                f"{labels.numel()} are {'anomalous' if labels.all() else 'normal'}."
            )
        ordered, self._order = torch.sort(scores, descending=True)
        self._labels = labels[self._order]
        # The last position of each run of tied scores.
        ends = torch.ones_like(ordered, dtype=torch.bool)
        ends[:-1] = ordered[1:] != ordered[:-1]
        self._ends = ends.nonzero().flatten()

    def counts(self, weights: Tensor | None = None) -> RankedCounts:
        """Count at each distinct threshold.

        Args:
            weights: Weight of each positive, like the scores; 1 if not given.
        """
        labels = self._labels
        if weights is None:
            positives = labels.cumsum(0)[self._ends].double()
            return RankedCounts(positives, (self._ends + 1).double() - positives)
        weighted = (weights.flatten()[self._order].double() * labels).cumsum(0)[self._ends]
        negatives = (~labels).cumsum(0)[self._ends].double()
        return RankedCounts(weighted, negatives)


def auroc(counts: RankedCounts) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties half."""
    tpr, fpr = (_from_zero(c / c[-1]) for c in counts)
    return float(torch.trapezoid(tpr, fpr))


def average_precision(counts: RankedCounts) -> float:
    """Average precision: the sum of recall steps times precision, as scikit-learn defines it."""
    recall = _from_zero(counts.true_positives / counts.true_positives[-1])
    precision = counts.true_positives / (counts.true_positives + counts.false_positives)
    return float((recall.diff() * precision).sum())


def f1_max(counts: RankedCounts) -> float:
    """Highest F1 over all distinct thresholds."""
    true, false = counts
    return float((2 * true / (true[-1] + true + false)).max())


def area_up_to(counts: RankedCounts, fpr_limit: float) -> float:
    """Area under the curve up to a false-positive rate, divided by that rate.

    The curve is interpolated at the limit.

    Raises:
        InputError: If the limit is not in (0, 1].
    """
    if not 0 < fpr_limit <= 1:
        raise InputError(f"fpr_limit must lie in (0, 1], but got {fpr_limit}.")
    tpr, fpr = (_from_zero(c / c[-1]) for c in counts)
    last = int(torch.searchsorted(fpr, fpr.new_tensor(fpr_limit), right=True)) - 1
    area = torch.trapezoid(tpr[: last + 1], fpr[: last + 1])
    width = fpr_limit - fpr[last]
    if width > 0:
        slope = (tpr[last + 1] - tpr[last]) / (fpr[last + 1] - fpr[last])
        area = area + width * (tpr[last] + slope * width / 2)
    return float(area / fpr_limit)


def _from_zero(x: Tensor) -> Tensor:
    return torch.cat([x.new_zeros(1), x])
