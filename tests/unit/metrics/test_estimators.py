"""The estimators of published code against re-implementations written from that code."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from sklearn.metrics import auc

from omiad.metrics import PixelDetection
from omiad.metrics.estimators import SOURCE_ESTIMATORS


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(rng.random((6, 24, 24)) > 0.985, np.ones((1, 4, 3)))
    maps = (rng.normal(size=masks.shape) + 2 * masks).astype(np.float32)
    maps[1] *= 3  # a hot image
    return maps, masks


def estimates(protocol: str, maps: np.ndarray, masks: np.ndarray) -> dict[str, float | None]:
    metric = PixelDetection()
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks), torch.arange(len(maps)))
    metric.compute()
    return SOURCE_ESTIMATORS[protocol](metric.bins)


def overlaps(found: np.ndarray, masks: np.ndarray) -> list[float]:
    shares = []
    for image, mask in zip(found, masks, strict=True):
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        shares += [image[labelled == k].mean() for k in range(1, count + 1)]
    return shares


@pytest.mark.parametrize("seed", range(3))
def test_ader_takes_fifty_bins_and_twenty_one_thresholds(seed: int) -> None:
    maps, masks = problem(seed)
    low, high = maps.min(), maps.max()
    edges = np.linspace(0, 1, 51, dtype=np.float32) * (high - low) + low
    tpr, fpr, precision, pro = [], [], [], []
    for edge in edges[::-1]:
        found = maps >= edge
        tpr.append(found[masks].mean())
        fpr.append(found[~masks].mean())
        precision.append(masks[found].mean() if found.any() else 1.0)
        pro.append(np.mean(overlaps(found, masks)))
    inside = [i for i in range(51) if fpr[i] <= 0.3]
    at_limit = np.interp(0.3, fpr[inside[-1] :], pro[inside[-1] :])
    x, y = [*np.array(fpr)[inside], 0.3], [*np.array(pro)[inside], at_limit]
    f1 = []
    for threshold in np.arange(0, 1 + 1e-3, 0.05):
        found = (maps - low) / (high - low) > threshold
        true = (found & masks).sum()
        f1.append(2 * true / (found.sum() + masks.sum()))
    expected = {
        "pixel_auroc": auc(fpr, tpr),
        "pixel_ap": auc(tpr, precision),
        "pixel_f1_max": max(f1),
        "aupro": auc(x, y) / 0.3,
    }
    assert estimates("ader", maps, masks) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_dinomaly_divides_by_the_last_rate_below_the_limit(seed: int) -> None:
    maps, masks = problem(seed)
    step = (maps.max() - maps.min()) / 200
    points = []
    for k in range(200):
        found = maps > maps.min() + k * step
        points.append((found[~masks].mean(), np.mean(overlaps(found, masks))))
    fpr, pro = np.array([p for p in points if p[0] < 0.3]).T
    expected = auc(fpr / fpr.max(), pro)
    assert estimates("dinomaly", maps, masks) == pytest.approx({"aupro": expected}, abs=1e-5)


def test_uniad_has_no_figure_but_auroc() -> None:
    assert set(estimates("uniad", *problem(0)).values()) == {None}


def test_a_constant_map_has_no_overlap_curve() -> None:
    _, masks = problem(0)
    flat = np.ones(masks.shape, np.float32)
    assert estimates("dinomaly", flat, masks) == {"aupro": None}
    assert estimates("ader", flat, masks)["aupro"] is None
