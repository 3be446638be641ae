"""Points of the ROC, PR and PRO curves, and the threshold that an image's outcome is told by."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FPR_LIMIT = 0.3
"""False-positive rate up to which the PRO curve is drawn: what AU-PRO integrates."""

_MAX_POINTS = 120
"""Points of a drawn curve; more cannot be told apart."""


class Curve(NamedTuple):
    """A curve in the unit square.

    Attributes:
        x: Ascending (K,).
        y: At each x (K,).
    """

    x: Array
    y: Array


class CategoryScores(NamedTuple):
    """What the curves of a category are drawn from.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        score: Image scores (N,).
        is_anomalous: Labels (N,).
        pixels: Normal, defective and region-weighted pixels of all images in some bins of their
            scores, from the lowest bin (3, K); None where masks are missing.
    """

    name: NDArray[np.str_]
    score: Array
    is_anomalous: NDArray[np.bool_]
    pixels: Array | None

    @property
    def threshold(self) -> float | None:
        """The score from which on images count as defective: that of the highest F1."""
        if self.is_anomalous.all() or not self.is_anomalous.any():
            return None
        distinct, rank = np.unique(-self.score, return_inverse=True)
        true = np.bincount(rank, weights=self.is_anomalous, minlength=len(distinct)).cumsum()
        called = np.bincount(rank, minlength=len(distinct)).cumsum()
        f1 = 2 * true / (true[-1] + called)
        return float(-distinct[np.argmax(f1)])

    @property
    def curves(self) -> dict[str, Curve]:
        """Every curve that is defined, by name."""
        found = dict[str, Curve]()
        if self.threshold is not None:
            order = np.unique(-self.score, return_inverse=True)[1]
            anomalous = np.bincount(order, weights=self.is_anomalous)
            counts = np.stack([np.bincount(order) - anomalous, anomalous, anomalous])
            found |= {"image ROC": roc(counts), "image PR": precision_recall(counts)}
        if self.pixels is not None and self.pixels[:2].sum(1).all():
            highest_first = self.pixels[:, ::-1]
            found |= {
                "pixel ROC": roc(highest_first),
                "pixel PR": precision_recall(highest_first),
                "PRO": per_region_overlap(highest_first),
            }
        return found


def roc(counts: Array) -> Curve:
    """True-positive rate over false-positive rate.

    Args:
        counts: Normal and defective scores at each threshold, the highest first (2 or more, K).
    """
    return Curve(*(_rates(row) for row in counts[:2]))


def precision_recall(counts: Array) -> Curve:
    """Precision over recall, as steps: average precision is the area below them."""
    false, true = np.cumsum(counts[:2], axis=1)
    precision, recall = true / np.maximum(true + false, 1), true / true[-1]
    # Precision holds from the recall before up to its own.
    starts = np.concatenate([[0.0], recall[:-1]])
    return Curve(np.stack([starts, recall], 1).ravel(), np.repeat(precision, 2))


def per_region_overlap(counts: Array) -> Curve:
    """Mean covered part of the defective regions over the pixels' false-positive rate, to 0.3."""
    fpr, overlap = _rates(counts[0]), _rates(counts[2])
    at_limit = np.interp(FPR_LIMIT, fpr, overlap)
    inside = fpr < FPR_LIMIT
    return Curve(np.append(fpr[inside], FPR_LIMIT), np.append(overlap[inside], at_limit))


def thinned(curve: Curve, num_points: int = _MAX_POINTS) -> Curve:
    """Leave points out that lie closer together than can be seen, and never the ends."""
    length = np.concatenate([[0.0], np.hypot(np.diff(curve.x), np.diff(curve.y)).cumsum()])
    if len(length) <= num_points or not length[-1]:
        return curve
    cells = (length / length[-1] * (num_points - 1)).astype(int)
    kept = np.append(np.diff(cells, prepend=-1) > 0, True)[: len(cells)]
    kept[-1] = True
    return Curve(curve.x[kept], curve.y[kept])


def _rates(counts: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
