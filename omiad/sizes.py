"""The sizes in a checkpoint, which are checked before anything of these sizes is built."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from omiad.checkpoint import DetectorSpec, check_tensors
from omiad.errors import InputError
from omiad.features.extractor import LARGEST_GRID, LARGEST_IMAGE, FeatureExtractor
from omiad.networks import build_network
from omiad.schema import conform
from omiad.tiling import MOST_TILES, WHOLE, Tiles


def check_sizes(spec: DetectorSpec, state: Mapping[str, Tensor], name: str) -> None:
    """Reject sizes that the weights contradict, before anything of these sizes is built."""
    sizes, used = spec["extractor"], spec["num_noise_draws"]
    tiles = tuple(sizes.get("tiles", WHOLE))
    rows, columns = conform(tiles, Tiles, where=f"{name}: the rows and columns of tiles")
    values = {
        "image_size": (sizes["image_size"], LARGEST_IMAGE),
        "number of rows of tiles": (rows, MOST_TILES),
        "number of columns of tiles": (columns, MOST_TILES),
        "number of tiles": (rows * columns, MOST_TILES),
        "number of pixels of all tiles": (rows * columns * sizes["image_size"] ** 2, 2**28),
        "feature_size": (sizes["feature_size"], LARGEST_GRID),
        "fold": (sizes.get("fold", 1), 64),
        "num_noise_draws": (used, 1024),
        "decoder_width": (spec["decoder_width"] or 1, 4096),
        "number of stages": (len(sizes["stages"]), 64),
    }
    channels = spec["network"]["init_args"].get("channels", 1)
    conform(channels, int, where=f"{name}: the channels of the network")
    floats = used * channels * sizes["feature_size"] ** 2
    values["number of values in the noise"] = (floats, 2**29)
    for what, (value, most) in values.items():
        if not 1 <= value <= most:
            raise InputError(
                f"{name}: the {what} is {value}, outside 1 to {most}. The file is damaged or was "
                f"changed; give another checkpoint."
            )
    with torch.device("meta"):  # shapes without memory
        parts = {
            "denoiser.network.": build_network(cast(dict[str, Any], spec["network"])),
            "extractor.": FeatureExtractor(**spec["extractor"], weights="random"),
        }
    for prefix, part in parts.items():
        given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        check_tensors(given, part.state_dict(), name)
