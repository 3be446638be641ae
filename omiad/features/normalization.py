"""Features to the units that the network works in."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from omiad.errors import InputError
from omiad.features.store import FeatureStatistics

FeatureNorm = Literal["none", "scalar", "channel"]


class FeatureNormalizer(nn.Module):
    """Shift and scale of features by the statistics of the training images.

    Network, noise and anomaly map all live in normalised units: what is compared with the
    reconstruction is the normalised feature, so the scale also weighs the channels in the map.

    Until `fit` it changes nothing. The statistics are buffers and travel with the state dict.

    Args:
        num_channels: C of the features.
        kind: "none" for raw features (the paper's), "scalar" to divide by the root mean square of
            all features, "channel" to standardise each channel.

    Raises:
        InputError: If the kind is none of these.
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
        """Take over the statistics of the training features, as far as the kind uses them."""
        if self.kind == "scalar":
            self.std.fill_(statistics.rms)
        if self.kind == "channel":
            self.mean.copy_(statistics.mean.view_as(self.mean))
            self.std.copy_(statistics.std.view_as(self.std))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise raw features (B, C, h, w); returns float32."""
        return (features.float() - self.mean) / self.std

    def inverse(self, normalized: Tensor) -> Tensor:
        """Return raw features (B, C, h, w), float32, from normalised ones."""
        return normalized.float() * self.std + self.mean

    def normalized_rms(self, statistics: FeatureStatistics) -> float:
        """Root mean square of the training features after normalisation."""
        mean, std = self.mean.double().cpu().flatten(), self.std.double().cpu().flatten()
        second_moment = statistics.std.square() + (statistics.mean - mean).square()
        return float((second_moment / std.square()).mean().sqrt())
