"""Per-region overlap: each defect region counts the same, whatever its size (MVTec AD)."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from omiad.errors import InputError
from omiad.metrics.ranking import Ranking, area_up_to

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def region_weights(masks: Tensor) -> Tensor:
    """Weight each defective pixel by 1 / area of its region.

    With these weights the mean overlap over all regions is a weighted true-positive rate.

    Args:
        masks: Defective pixels (N, H, W), bool.

    Returns:
        Weights (N, H, W), float32; 0 where nothing is defective. Regions are 8-connected.

    Raises:
        InputError: If the masks are not (N, H, W).
    """
    if masks.ndim != 3:
        raise InputError(f"masks must be (N, H, W), but got shape {tuple(masks.shape)}.")
    weights = torch.zeros(masks.shape)
    for i in masks.flatten(1).any(1).nonzero().flatten().tolist():
        mask = masks[i].numpy()
        regions, _ = ndimage.label(mask, structure=_EIGHT_CONNECTED)
        inside = regions[mask]
        areas = np.bincount(inside).astype(np.float32)
        weights[i][masks[i]] = torch.from_numpy(1 / areas[inside])
    return weights


def au_pro(scores: Tensor, masks: Tensor, *, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap curve up to a false-positive rate, divided by it.

    The false-positive rate is over all normal pixels of all images; every distinct score is a
    threshold.

    Args:
        scores: Anomaly maps (N, H, W).
        masks: Defective pixels (N, H, W), bool.
        fpr_limit: False-positive rate to integrate to.
    """
    return area_up_to(Ranking(scores, masks).counts(region_weights(masks)), fpr_limit)
