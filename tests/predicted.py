"""Predictions of a few images of 8 x 8 pixels, and what is known about them."""

import torch

from omiad.types import Labels, Prediction


def batch_of(
    anomalous: list[bool], generator: torch.Generator, *, masked: bool = True
) -> tuple[Prediction, Labels]:
    """Return images whose defect is a bright square in the map."""
    count = len(anomalous)
    is_anomalous = torch.tensor(anomalous)
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    if masked:
        masks[is_anomalous, 2:5, 2:5] = True
    maps = torch.rand(count, 8, 8, generator=generator) + 0.6 * masks
    known = ~is_anomalous | torch.tensor(masked)
    labels = Labels(is_anomalous, masks, known, torch.arange(count), torch.zeros(count).long())
    return Prediction(maps.amax((1, 2)), maps), labels
