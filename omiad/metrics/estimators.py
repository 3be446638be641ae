"""The estimators of published code, to reproduce a published number; our own figures are exact.

Each takes its thresholds at equal distances between the lowest and the highest score of a
category. A single image with high scores therefore moves every figure.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from omiad.metrics.histogram import Bins, score_codes, scores_of
from omiad.metrics.ranking import FPR_LIMIT

Array = NDArray[np.float64]
Estimates = dict[str, float | None]


class _Counts:
    """Numbers of pixels at or above thresholds; a pixel counts as the first code of its bin."""

    def __init__(self, bins: Bins) -> None:
        self.start = bins.start
        self.above = np.cumsum(bins.counts[:, ::-1], axis=1)[:, ::-1]
        self.above = np.concatenate([self.above, np.zeros((3, 1))], axis=1)
        self.low, self.high = scores_of(bins.start[[0, -1]].astype(np.int32)).tolist()

    def at(self, thresholds: Array, *, inclusive: bool) -> Array:
        """Count scores >= or > each threshold (T,): normal, defective, weighted (3, T)."""
        codes = score_codes(torch.from_numpy(thresholds.astype(np.float32))).astype(np.int64)
        side: Literal["left", "right"] = "left" if inclusive else "right"
        first = np.searchsorted(self.start, codes, side=side)
        return np.take(self.above, first, axis=1)


def uniad(bins: Bins) -> Estimates:
    """UniAD reports pixel AUROC alone, exactly; its 1 - AUROC below 0.5 is not copied."""
    return {"pixel_ap": None, "pixel_f1_max": None, "aupro": None}


def ader(bins: Bins) -> Estimates:
    """ADer: adeval's 50 bins, AP as a trapezoid, F1-max over 21 thresholds (util/metric.py)."""
    counts = _Counts(bins)
    span = counts.high - counts.low
    points = counts.at(counts.low + span * np.linspace(0, 1, 51), inclusive=True)[:, ::-1]
    total = counts.above[:, :1]
    fpr, recall, overlap = points / total
    precision = np.where(points[:2].sum(0) > 0, points[1] / np.maximum(points[:2].sum(0), 1), 1.0)
    false, true, _ = counts.at(counts.low + span * np.arange(0, 1.001, 0.05), inclusive=False)
    return {
        "pixel_auroc": float(trapezoid(recall, fpr)),
        "pixel_ap": float(trapezoid(precision, recall)),
        "pixel_f1_max": float((2 * true / (true + false + total[1])).max()),
        "aupro": _area_to_limit(fpr, overlap),
    }


def dinomaly(bins: Bins) -> Estimates:
    """Dinomaly: AU-PRO over 200 thresholds below the limit, divided by the last rate reached."""
    counts = _Counts(bins)
    thresholds = counts.low + (counts.high - counts.low) * np.arange(200) / 200
    points = counts.at(thresholds, inclusive=False)[:, ::-1] / counts.above[:, :1]
    fpr, overlap = points[0], points[2]
    inside = fpr < FPR_LIMIT
    if not fpr[inside].any():
        return {"aupro": None}
    area = trapezoid(overlap[inside], fpr[inside]) / fpr[inside].max()
    return {"aupro": float(area)}


def _area_to_limit(fpr: Array, overlap: Array) -> float | None:
    """Integrate from the first point, interpolating at the limit."""
    k = int(np.searchsorted(fpr, FPR_LIMIT, side="right"))
    if k == 0:
        return None
    part = (FPR_LIMIT - fpr[k - 1]) / (fpr[k] - fpr[k - 1])
    at_limit = overlap[k - 1] + part * (overlap[k] - overlap[k - 1])
    x, y = np.append(fpr[:k], FPR_LIMIT), np.append(overlap[:k], at_limit)
    return float(trapezoid(y, x) / FPR_LIMIT)


SOURCE_ESTIMATORS: dict[str, Callable[[Bins], Estimates]] = {
    "uniad": uniad,
    "ader": ader,
    "dinomaly": dinomaly,
}
"""Pixel figures as the source of a protocol estimates them; its other figures are exact."""
