"""The interface of every denoising network, so that another one needs only a configuration."""

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


def network_spec(network: Network) -> dict[str, Any]:
    """Return the class and the arguments of a network as plain data."""
    cls = type(network)
    # Take the outermost package that exports the class: that path survives a move between files.
    packages = accumulate(cls.__module__.split("."), "{}.{}".format)
    home = next(
        (p for p in packages if getattr(sys.modules.get(p), cls.__qualname__, None) is cls),
        cls.__module__,
    )
    return {"class_path": f"{home}.{cls.__qualname__}", "init_args": network.config}


def build_network(spec: dict[str, Any]) -> Network:
    """Build a network from the result of `network_spec`, with new weights."""
    module, _, name = str(spec["class_path"]).rpartition(".")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The network class '{spec['class_path']}' cannot be imported. Install the package "
            f"that the checkpoint was trained with."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        raise InputError(
            f"'{spec['class_path']}' is not a subclass of omiad.networks.Network. Give the class "
            f"path of a network."
        )
    return cls(**spec["init_args"])
