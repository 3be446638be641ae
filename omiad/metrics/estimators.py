"""The estimators of published code, which reproduce published numbers; our own figures are exact.

Each takes its thresholds at equal distances between the lowest and the highest score of a
category. A single image with high scores therefore moves every figure.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from scipy.integrate import trapezoid

from omiad.metrics.histogram import Bins, score_codes, scores_of
from omiad.metrics.ranking import FPR_LIMIT, Array, Figures


def ader(bins: Bins) -> Figures:
    """ADer: adeval's 50 bins, AP as a trapezoid, F1-max over 21 thresholds (util/metric.py)."""
    points = _counts(bins, np.linspace(0, 1, 51), inclusive=True)[:, ::-1]
    total = bins.counts.sum(1, keepdims=True)
    fpr, recall, overlap = points / total
    precision = np.where(points[:2].sum(0) > 0, points[1] / np.maximum(points[:2].sum(0), 1), 1.0)
    false, true, _ = _counts(bins, np.arange(0, 1.001, 0.05), inclusive=False)
    aupro = None
    inside = fpr <= FPR_LIMIT
    if inside.any():  # from the first point, interpolated at the limit
        at_limit = np.interp(FPR_LIMIT, fpr, overlap)
        x, y = np.append(fpr[inside], FPR_LIMIT), np.append(overlap[inside], at_limit)
        aupro = float(trapezoid(y, x) / FPR_LIMIT)
    return {
        "pixel_auroc": float(trapezoid(recall, fpr)),
        "pixel_ap": float(trapezoid(precision, recall)),
        "pixel_f1_max": float((2 * true / (true + false + total[1])).max()),
        "aupro": aupro,
    }


def dinomaly(bins: Bins) -> Figures:
    """Dinomaly: AU-PRO over 200 thresholds below the limit, divided by the last rate reached."""
    points = _counts(bins, np.arange(200) / 200, inclusive=False)[:, ::-1]
    fpr, _, overlap = points / bins.counts.sum(1, keepdims=True)
    inside = fpr < FPR_LIMIT
    if not fpr[inside].any():
        return {"aupro": None}
    return {"aupro": float(trapezoid(overlap[inside], fpr[inside]) / fpr[inside].max())}


SOURCE_ESTIMATORS: dict[str, Callable[[Bins], Figures]] = {
    # Pixel AUROC alone, exactly; the 1 - AUROC that UniAD reports below 0.5 is not copied.
    "uniad": lambda _: dict.fromkeys(("pixel_ap", "pixel_f1_max", "aupro")),
    "ader": ader,
    "dinomaly": dinomaly,
}
"""Pixel figures as the source of a protocol estimates them; its other figures are exact."""


def _counts(bins: Bins, fractions: Array, *, inclusive: bool) -> Array:
    """Count normal, defective and weighted defective pixels above thresholds (3, T).

    The thresholds lie at fractions (T,) of the range from the lowest to the highest score. A pixel
    counts as the first code of its bin; one that equals a threshold counts if that is inclusive.
    """
    low, high = scores_of(bins.start[[0, -1]].astype(np.int32)).tolist()
    thresholds = torch.from_numpy((low + (high - low) * fractions).astype(np.float32))
    side: Literal["left", "right"] = "left" if inclusive else "right"
    first = np.searchsorted(bins.start, score_codes(thresholds).astype(np.int64), side=side)
    above = np.cumsum(bins.counts[:, ::-1], axis=1)[:, ::-1]
    return np.take(np.append(above, np.zeros((3, 1)), axis=1), first, axis=1)
