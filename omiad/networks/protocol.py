"""The interface of every denoising network, so that another one needs only a configuration."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network over feature maps whose encoder can serve as a discriminator.

    Attributes:
        config: Arguments of the constructor as plain data; they build an equal network.
    """

    config: dict[str, Any]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map noisy features x (B, C, H, W) and steps t (B,) to a raw output (B, C, H, W)."""
        return self.forward_and_encode(x, t)[0]

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Run only the encoder and return its output (B, C', H', W')."""
        return self.encode_levels(x, t)[-1]

    @abstractmethod
    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the outputs of the encoder's levels, each (B, C_k, H_k, W_k)."""

    @abstractmethod
    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results of `forward`, in float32, and of `encode` from a single pass."""

    @abstractmethod
    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the encoder's parameters, without the timestep embedding that all layers share."""
