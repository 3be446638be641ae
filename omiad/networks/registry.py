"""The networks that a checkpoint may name: omiad's own, and those that the user trusts."""

import inspect
import logging
import sys
from importlib import import_module
from itertools import accumulate
from typing import Any, get_type_hints

from omiad.errors import InputError
from omiad.names import one_line
from omiad.networks.dit import DiT, dit_base, dit_medium, dit_small
from omiad.networks.protocol import Network
from omiad.networks.unet import UNet, unet_base, unet_medium, unet_small, unet_tiny
from omiad.networks.uvit import UViT, uvit_base, uvit_medium, uvit_small
from omiad.schema import conform

logger = logging.getLogger(__name__)

HOME = "omiad.networks"

NETWORKS: dict[str, type[Network]] = {f"{HOME}.{cls.__name__}": cls for cls in (DiT, UNet, UViT)}
"""Class of each network that a checkpoint may name, by class path; `trust` adds to them."""

PRESETS = frozenset(
    f"{HOME}.{preset.__name__}"
    for preset in (
        *(dit_base, dit_medium, dit_small, unet_base, unet_medium, unet_small, unet_tiny),
        *(uvit_base, uvit_medium, uvit_small),
    )
)
"""Functions that build a network of a fixed size."""

LARGEST = 16_384
"""Largest number of channels, or other size, of a network that a checkpoint describes."""

MOST_BLOCKS = 256
"""Most blocks of such a network, and most entries of a list."""


def trust(class_path: str) -> None:
    """Import a network of your own, so that checkpoints may name it from now on.

    Importing runs the code of its module: give only a class path whose module you trust.

    Raises:
        InputError: If it cannot be imported, or is no subclass of `Network`.
    """
    module, _, name = class_path.rpartition(".")
    logger.info("trust: importing %s", one_line(class_path))
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"The trusted class '{one_line(class_path)}' cannot be imported. Install the package "
            f"that the checkpoint was trained with, or correct --trust."
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Network)):
        raise InputError(
            f"'{one_line(class_path)}' is not a subclass of omiad.networks.Network. Give --trust "
            f"the class path of a network."
        )
    NETWORKS[class_path] = cls


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
    """Build a network from the result of `network_spec`, with new weights; imports nothing.

    Raises:
        InputError: If the network is neither one of omiad's nor trusted, or an argument is wrong.
    """
    path, arguments = spec["class_path"], spec["init_args"]
    check_network(path)
    cls = NETWORKS[path]
    check_network_arguments(cls, arguments)
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"'{path}' cannot be built with the arguments that the checkpoint holds ({error}). Use "
            f"the version of the class that the checkpoint was trained with."
        ) from error


def check_network(path: str) -> None:
    """Reject the class path of a network that a checkpoint may not name."""
    if path not in NETWORKS:
        shown = one_line(path)[:120]
        raise InputError(
            f"The checkpoint names the class '{shown}', which is none of omiad's networks, and is "
            f"not imported. If you trust it, add --trust {shown} (in Python: trust='{shown}')."
        )


def check_network_arguments(cls: type[Network], arguments: dict[str, Any]) -> None:
    """Reject arguments of a network of omiad that have another type or are absurdly large."""
    if not cls.__module__.startswith(f"{HOME}."):
        return
    where = f"The checkpoint: network {cls.__name__}"
    hints, known = get_type_hints(cls.__init__), inspect.signature(cls).parameters
    if unknown := arguments.keys() - known.keys():
        shown = ", ".join(one_line(name)[:40] for name in sorted(unknown))
        raise InputError(f"{where} has no argument {shown}. Train the model again.")
    for name, value in arguments.items():
        conform(value, hints[name], where=f"{where}.{name}")
        most = MOST_BLOCKS if name in ("depth", "num_blocks") else LARGEST
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MOST_BLOCKS or any(not 1 <= number <= most for number in numbers):
            raise InputError(f"{where}.{name} is outside 1 to {most}. Train the model again.")
