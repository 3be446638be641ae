"""Split conformal prediction: thresholds and p-values from scores of normal photographs alone.

If a new normal photograph and the n normal photographs of the calibration are exchangeable (drawn
in the same way, in any order), the p-value of the new photograph is at most r with a probability of
at most r, whatever the distribution of the scores and however good the model is.

The guarantee has four limits.

- The probability is over the calibration photographs too. The false-alarm rate of one calibration
  may be higher than r; `rate_bound` says how high.
- n photographs support no rate below 1 / (n + 1).
- Photographs of another session, lamp or camera are not exchangeable with those of the calibration.
  `omiad calibrate` sets thresholds anew from photographs of the new kind.
- Photographs that the model was fitted to score too low. A product with fewer than 40 photographs
  has no others: each is scored with a memory of the others, but the network has seen all of them,
  so the false-alarm rate may be somewhat higher than r.

The guarantee holds for each product on its own, and for photographs that are recognised as theirs.

Source: Vovk, Gammerman and Shafer 2005, section 2.2; Bates et al. 2023 (Annals of Statistics 51).
"""

import math
from numbers import Real

from scipy.stats import beta
from torch import Tensor

from omiad.errors import InputError

CONFIDENCE = 0.95
"""Probability with which `rate_bound` holds."""


def smallest_rate(num_normal: int) -> float:
    """Return the lowest false-alarm rate that so many normal photographs can support."""
    return 1 / (num_normal + 1)


def normals_needed(rate: float) -> int:
    """Return how many normal photographs a false-alarm rate in (0, 1) needs at least."""
    return math.ceil(1 / rate - 1 - 1e-9)


def p_values(scores: Tensor, normal: Tensor) -> Tensor:
    """Return the p-value of each score, in 1 / (n + 1) .. 1, as float64.

    float32 would round 1 / 10 up, so that a defect at a rate of 0.1 had a higher p-value than 0.1.

    Args:
        scores: Scores of photographs (B,); higher is more anomalous.
        normal: Scores of normal photographs (n,) that the model was not fitted to, or those for
            each photograph (B, n), where -inf stands for none.
    """
    at_least = (normal >= scores[:, None]).sum(-1)
    return (1 + at_least).double() / ((normal > -math.inf).sum(-1) + 1)


def threshold(normal: Tensor, rate: float) -> float:
    """Return the score above which a photograph counts as defective.

    A score is above the threshold exactly if its p-value is at most `rate`.

    Args:
        normal: Scores of normal photographs (n,) that the model was not fitted to.
        rate: False-alarm rate, in (0, 1).

    Raises:
        InputError: If the rate is out of range, or lower than n photographs support.
    """
    check_supported(len(normal), rate)
    rank = _rank(len(normal), rate)
    return float(normal.sort(descending=True).values[rank - 1])


def rate_bound(num_normal: int, rate: float) -> float:
    """Return a rate that the false alarms of one calibration exceed with a probability of 5 %.

    Over calibrations, the false-alarm rate of a threshold follows a beta distribution, whose mean
    is at most `rate` (Vovk 2012, "Conditional validity of inductive conformal predictors").
    """
    rank = _rank(num_normal, rate)
    return float(beta.ppf(CONFIDENCE, rank, num_normal + 1 - rank)) if rank else 0.0


def check_rate(rate: float) -> None:
    """Refuse a false-alarm rate outside (0, 1)."""
    if not isinstance(rate, Real) or not 0 < rate < 1:
        raise InputError(f"--false_alarms must lie between 0 and 1, but got {rate!r}.")


def check_supported(num_normal: int, rate: float, *, product: str | None = None) -> None:
    """Refuse a false-alarm rate that so many normal photographs, of a product, do not support."""
    check_rate(rate)
    if _rank(num_normal, rate) < 1:
        of_product = "" if product is None else f"'{product}': "
        raise InputError(
            f"{of_product}{num_normal} normal photographs support false-alarm rates from "
            f"{smallest_rate(num_normal):.2g}, but {rate:g} was asked for, which needs "
            f"{normals_needed(rate)} photographs. Give more photographs or a higher --false_alarms."
        )


def _rank(num_normal: int, rate: float) -> int:
    """Return the rank, from the highest, of the normal score that is the threshold; 0 for none."""
    return math.floor(rate * (num_normal + 1) + 1e-9)
