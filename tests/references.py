"""Slow definitions that the metrics are held against, written from the definitions alone."""

from itertools import pairwise

import numpy as np
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def slow_au_pro(scores: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Follow the definition literally: every threshold, every region."""
    regions = []
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(image, labelled == k) for k in range(1, count + 1)]
    fprs, overlaps = [0.0], [0.0]
    for threshold in sorted(set(scores.ravel().tolist()), reverse=True):
        found = scores >= threshold
        fprs.append(found[~masks].mean())
        overlaps.append(np.mean([found[image][region].mean() for image, region in regions]))
    grid = np.unique(np.concatenate([[f for f in fprs if f <= limit], [limit]]))
    # At a repeated false-positive rate the curve is vertical: integrate below and above it.
    area = 0.0
    for left, right in pairwise(grid):
        start = max(o for f, o in zip(fprs, overlaps, strict=True) if f <= left)
        after = [(f, o) for f, o in zip(fprs, overlaps, strict=True) if f > left]
        next_f, next_o = after[0]
        end = start + (next_o - start) * (right - left) / (next_f - left)
        area += (right - left) * (start + end) / 2
    return area / limit


def slow_ranking(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return AUROC, AP and F1-max by scikit-learn, and operating points threshold by threshold."""
    scores, labels = scores.ravel(), labels.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    figures = {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1_max": (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(),
    }
    points = [(0.0, 0.0)]
    for threshold in np.unique(scores):
        found = scores >= threshold
        points.append((found[labels].mean(), found[~labels].mean()))
    for wanted in (0.95, 0.99):
        figures[f"fpr_at_recall_{wanted}"] = min(f for r, f in points if r >= wanted - 1e-9)
    for limit in (0.001, 0.01):
        figures[f"recall_at_fpr_{limit}"] = max(r for r, f in points if f <= limit + 1e-9)
    return figures


def slow_pixel_figures(scores: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Return every pixel figure by its name in the results."""
    figures = {f"pixel_{name}": value for name, value in slow_ranking(scores, masks).items()}
    figures["aupro"] = slow_au_pro(scores, masks, 0.3)
    for limit in (0.05, 0.01):
        figures[f"aupro_{limit}"] = slow_au_pro(scores, masks, limit)
    return figures
