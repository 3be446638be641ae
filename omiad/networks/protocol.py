"""What every denoising network offers, so that changing it changes only the configuration."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from importlib import import_module
from itertools import accumulate
from typing import Any

from torch import Tensor, nn

from omiad.errors import InputError


class Network(nn.Module, ABC):
    """A network over feature maps whose encoder can serve as a discriminator.

    Attributes:
        config: Plain arguments from which an equal network is built.
    """

    config: dict[str, Any]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map noisy features x (B, C, H, W) and steps t (B,) to a raw output (B, C, H, W)."""
        return self.forward_and_encode(x, t)[0]

    @abstractmethod
    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Run the encoder alone: (B, C', H', W')."""

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return what the encoder passes on its way, each (B, C_k, H_k, W_k), `encode`'s last."""
        return [self.encode(x, t)]

    @abstractmethod
    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return output and encoding of one pass; the encoding equals `encode`'s."""

    @abstractmethod
    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the encoder's parameters, without the timestep embedding that all layers share."""


def network_spec(network: Network) -> dict[str, Any]:
    """Describe a network as plain data: its class and arguments."""
    cls = type(network)
    # The outermost package that exports the class: its path outlives a move between files.
    packages = accumulate(cls.__module__.split("."), "{}.{}".format)
    home = next(
        (p for p in packages if getattr(sys.modules.get(p), cls.__qualname__, None) is cls),
        cls.__module__,
    )
    return {"class_path": f"{home}.{cls.__qualname__}", "init_args": network.config}


def build_network(spec: dict[str, Any]) -> Network:
    """Build a network from `network_spec`, with fresh weights.

    Raises:
        InputError: If the class cannot be imported or is not a `Network`.
    """
    module, _, name = str(spec["class_path"]).rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The network class '{spec['class_path']}' cannot be imported. Install the package "
            f"that the checkpoint was trained with."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        raise InputError(f"'{spec['class_path']}' is not a network of omiad (omiad.networks).")
    return cls(**spec["init_args"])
