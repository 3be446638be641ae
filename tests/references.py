"""Slow references of the metrics and protocols, written from their definitions alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from scipy.integrate import trapezoid
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torch.nn import functional as F  # noqa: N812
from torchvision import transforms as T  # noqa: N812

Prepared = tuple[np.ndarray, np.ndarray, float]
"""A map, its mask and the image score."""


def slow_au_pro(scores: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """Follow MVTec's definition: one step of both rates for each pixel, in the order of scores."""
    false, overlap = (~masks / (~masks).sum()).ravel(), np.zeros(masks.shape)
    total = 0
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        total += count
        for region in range(1, count + 1):
            overlap[image][labelled == region] = 1 / (labelled == region).sum()
    order = np.argsort(-scores.ravel(), kind="stable")
    fpr, pro = false[order].cumsum(), overlap.ravel()[order].cumsum() / total
    ranked = scores.ravel()[order]
    last = np.append(ranked[1:] != ranked[:-1], True)  # tied pixels are one threshold
    x, y = np.append(0, fpr[last]), np.append(0, pro[last])
    inside = x <= limit
    next_x, next_y = x[~inside][0], y[~inside][0]
    part = (limit - x[inside][-1]) / (next_x - x[inside][-1])
    at_limit = y[inside][-1] + part * (next_y - y[inside][-1])
    area = trapezoid(np.append(y[inside], at_limit), np.append(x[inside], limit))
    return float(area / limit)


def sklearn_figures(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return AUROC, AP and F1-max by scikit-learn."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1_max": (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max(),
    }


def slow_ranking(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's figures, and operating points threshold by threshold."""
    scores, labels = scores.ravel(), labels.ravel()
    figures = sklearn_figures(scores, labels)
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


def uniad_steps(scores: np.ndarray, mask: np.ndarray) -> Prepared:
    """Prepare a map of 224 x 224 and a mask (H, W) as UniAD does."""
    rows, columns = (np.floor((np.arange(224) + 0.5) * n / 224).astype(int) for n in mask.shape)
    windows = np.lib.stride_tricks.sliding_window_view(scores, (16, 16))
    return scores, mask[np.ix_(rows, columns)], windows.mean((-1, -2), dtype=np.float64).max()


def ader_steps(scores: np.ndarray, mask: np.ndarray) -> Prepared:
    """Prepare a map of 256 x 256 and a mask (H, W) as ADer does by default."""
    steps = T.Compose([T.Resize((256, 256)), T.ToTensor()])
    blurred = ndimage.gaussian_filter(scores, sigma=4)
    return blurred, (steps(_white(mask))[0] > 0.5).numpy(), blurred.max()


def dinomaly_steps(scores: np.ndarray, mask: np.ndarray) -> Prepared:
    """Prepare a map of 392 x 392 and a mask (H, W) as Dinomaly does."""
    steps = T.Compose([T.Resize((448, 448)), T.CenterCrop(392), T.ToTensor()])
    grey = F.interpolate(steps(_white(mask))[None], size=256, mode="nearest")[0, 0]
    maps = torch.from_numpy(scores)[None, None]
    small = F.interpolate(maps, size=256, mode="bilinear", align_corners=False)
    offsets = range(-2, 3)
    kernel = torch.tensor(
        [[math.exp(-(x**2 + y**2) / (2 * 4**2)) for x in offsets] for y in offsets]
    )
    blurred = F.conv2d(small, (kernel / kernel.sum())[None, None], padding=2)[0, 0].numpy()
    top = np.sort(blurred.ravel())[::-1][: int(256 * 256 * 0.01)]
    return blurred, grey.bool().numpy(), top.mean()


PROTOCOL_STEPS = {
    "uniad": (uniad_steps, 224),
    "ader": (ader_steps, 256),
    "dinomaly": (dinomaly_steps, 392),
}
"""Steps of each preset, and the side of the maps they take."""


def _white(mask: np.ndarray) -> Image.Image:
    return Image.fromarray((255 * mask).astype(np.uint8))


def patches(
    x_0: np.ndarray,
    residual: np.ndarray,
    rms: np.ndarray,
    channels_per_stage: Sequence[int],
    residual_weight: float,
) -> np.ndarray:
    """Return what a memory compares of features and residuals (M, C).

    Each stage's part v of either is divided by sqrt(|v|^2 + its number of channels).
    """
    compared = []
    for x, weight in ((x_0, 1.0), (residual / rms, residual_weight)):
        for part in np.split(x, np.cumsum(channels_per_stage)[:-1], axis=1):
            length = np.sqrt((part**2).sum(1, keepdims=True) + part.shape[1])
            compared.append(weight * part / length)
    return np.concatenate(compared, axis=1)
