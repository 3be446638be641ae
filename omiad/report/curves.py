"""Points of the ROC, PR and PRO curves of a category, and its threshold."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FPR_LIMIT = 0.3
"""False-positive rate at which the PRO curve ends: the limit of AU-PRO."""


class Curve(NamedTuple):
    """A curve in the unit square: ascending values (K,), and the value at each of them (K,)."""

    x: Array
    y: Array


class CategoryScores(NamedTuple):
    """The scores of a category.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        score: Image scores (N,).
        is_anomalous: Image labels (N,).
        pixels: Numbers of normal, defective and region-weighted pixels in bins of their scores,
            the lowest bin first (3, K); None where masks are missing.
    """

    name: NDArray[np.str_]
    score: Array
    is_anomalous: NDArray[np.bool_]
    pixels: Array | None

    @property
    def threshold(self) -> float | None:
        """The score with the highest F1; None if normal or defective images are missing."""
        if self.is_anomalous.all() or not self.is_anomalous.any():
            return None
        scores, counts = self._ranked
        false, true = counts.cumsum(axis=1)
        return float(scores[np.argmax(2 * true / (true[-1] + true + false))])

    @property
    def curves(self) -> dict[str, Curve]:
        """Every curve that is defined, by name."""
        found = dict[str, Curve]()
        if self.threshold is not None:
            found |= _roc_and_pr("image", self._ranked[1])
        if self.pixels is not None and self.pixels[:2].sum(axis=1).all():
            highest_first = self.pixels[:, ::-1]
            found |= _roc_and_pr("pixel", highest_first)
            fpr, overlap = _rates(highest_first[0]), _rates(highest_first[2])
            inside = fpr < FPR_LIMIT
            at_limit = np.interp(FPR_LIMIT, fpr, overlap)
            found["PRO"] = Curve(
                np.append(fpr[inside], FPR_LIMIT), np.append(overlap[inside], at_limit)
            )
        return found

    @property
    def _ranked(self) -> tuple[Array, Array]:
        """The distinct scores (K,), the highest first, with normal and defective counts (2, K)."""
        negated, rank = np.unique(-self.score, return_inverse=True)
        labels = (~self.is_anomalous, self.is_anomalous)
        return -negated, np.stack([np.bincount(rank, weights=label) for label in labels])


def _roc_and_pr(what: str, counts: Array) -> dict[str, Curve]:
    """Return recall over false-positive rate, and precision over recall in steps.

    Average precision is the area below the steps: a precision holds from the previous recall up to
    its own. The counts are normal and defective at each threshold, the highest first (2 or 3, K).
    """
    false, true = np.cumsum(counts[:2], axis=1)
    recall = _rates(counts[1])
    precision = true / np.maximum(true + false, 1)
    steps = Curve(np.stack([recall[:-1], recall[1:]], 1).ravel(), np.repeat(precision, 2))
    return {f"{what} ROC": Curve(_rates(counts[0]), recall), f"{what} PR": steps}


def _rates(counts: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
