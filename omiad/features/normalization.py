"""Statistics of the training features, and the normalisation of features by them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from omiad.errors import InputError

FeatureNorm = Literal["none", "scalar", "channel"]


class FeatureStatistics(NamedTuple):
    """Statistics of raw features over all images and positions.

    A standard deviation is at least a thousandth of `rms`, so that a channel that is constant in
    training does not dominate the anomaly maps.
    """

    mean: Tensor  # of each channel (C,), float64
    std: Tensor  # of each channel (C,), float64
    rms: float  # root mean square of all values


def measure(batches: Iterable[Tensor]) -> FeatureStatistics:
    """Compute the statistics of at least one batch of features (B, C, h, w) in float64."""
    total, values = torch.zeros(()), 0
    for batch in batches:
        x = batch.double()
        total = total + torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        values += x.numel() // x.shape[1]
    mean, second_moment = total / values
    rms = float(second_moment.mean().sqrt())
    variance = (second_moment - mean.square()).clamp(min=0)
    # The second bound keeps a division possible if all features are zero.
    return FeatureStatistics(mean, variance.sqrt().clamp(min=max(1e-3 * rms, 1e-12)), rms)


class FeatureNormalizer(nn.Module):
    """Shift and scale features by the statistics of the training images; does nothing before `fit`.

    The network, its noise and the anomaly map all use normalised features. The scale therefore also
    weighs the channels in the anomaly map. The kind is "none" for raw features (the paper's
    choice), "scalar" to divide by the root mean square of all features, or "channel" to standardise
    each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_channels: int, kind: FeatureNorm = "none") -> None:
        super().__init__()
        if kind not in get_args(FeatureNorm):
            raise InputError(
                f"feature_norm must be one of {', '.join(get_args(FeatureNorm))}, but got '{kind}'."
            )
        self.kind = kind
        self.register_buffer("mean", torch.zeros(1, num_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, num_channels, 1, 1))

    def fit(self, statistics: FeatureStatistics) -> None:
        """Set shift and scale from the statistics of the training features."""
        if self.kind == "scalar":
            self.std.fill_(statistics.rms)
        if self.kind == "channel":
            self.mean.copy_(statistics.mean.view_as(self.mean))
            self.std.copy_(statistics.std.view_as(self.std))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise raw features (B, C, h, w); the result is float32."""
        return (features.float() - self.mean) / self.std

    def normalized_rms(self, statistics: FeatureStatistics) -> float:
        """Return the root mean square of the training features after normalisation."""
        mean, std = self.mean.double().cpu().flatten(), self.std.double().cpu().flatten()
        second_moment = statistics.std.square() + (statistics.mean - mean).square()
        return float((second_moment / std.square()).mean().sqrt())
