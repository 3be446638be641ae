"""The timm network behind the features and where its weights come from."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict as load_timm_file
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from omiad.errors import InputError, MissingInputError

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
CHECKPOINT_SUFFIX = ".ckpt"
EXTRACTOR_PREFIX = "extractor."
"""Where a checkpoint of omiad keeps the extractor, below whatever module holds it."""


COARSEST_STRIDE = 16
"""Stride of the coarsest feature map that is used by default, as in the paper."""

NUM_BLOCKS = 4
"""Blocks of a plain ViT that are used by default, evenly spaced to its last, as in DPT."""


def build_backbone(
    name: str, stages: Sequence[int] | None, seed: int, *, image_size: int
) -> nn.Module:
    """Build a timm network that returns its feature maps, with random weights.

    Args:
        name: Model name of timm, with or without a weights tag.
        stages: Which of its feature maps, in timm's numbering; None for those down to a sixteenth
            of the image or, where all have one size (a plain ViT), four blocks evenly spaced.
        seed: Of the weights; torch's global random state is left as it was.
        image_size: Side of the images, for networks that are built for one size.

    Raises:
        InputError: If timm has no such model, tag or stages.
    """
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.0)
        raise InputError(
            f"timm {timm.__version__} has no backbone '{name}'. Near names: {', '.join(near)}."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # noqa: TID251 (timm initialises from torch's global state)
            if stages is None:
                stages = _default_stages(name, image_size)
                return build_backbone(name, stages, seed, image_size=image_size)
            backbone = _create(name, stages, image_size)
    except InputError:
        raise
    except Exception as error:  # timm raises whatever the model's own code runs into
        raise InputError(
            f"timm cannot give the feature maps {list(stages or ())} of backbone '{name}' "
            f"({error}). Check the tag behind the dot, and choose other --data.stages."
        ) from error
    return _without_unused_stages(backbone)


def stages_of(backbone: nn.Module) -> list[int]:
    """Return which of its feature maps a network gives, in timm's numbering."""
    info: Any = backbone.feature_info
    return list(info.out_indices)


def _create(name: str, stages: Sequence[int] | None, image_size: int, **arguments: Any) -> Any:
    config = timm.models.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and config.input_size[-1] != image_size:
        arguments["img_size"] = image_size  # positions are learned for one size
    if stages is not None:
        arguments["out_indices"] = stages
    return timm.create_model(name, features_only=True, **arguments)


def _default_stages(name: str, image_size: int) -> list[int]:
    every = _create(name, None, image_size).feature_info.info
    strides = [stage["reduction"] for stage in every]
    if len(set(strides)) == 1:
        return [len(every) * (i + 1) // NUM_BLOCKS - 1 for i in range(NUM_BLOCKS)]
    return [i for i, stride in enumerate(strides) if stride <= COARSEST_STRIDE]


def load_pretrained(name: str, stages: Sequence[int], *, image_size: int) -> nn.Module:
    """Build the network with the weights that timm publishes, downloaded or from its cache.

    Raises:
        InputError: If they cannot be had, for example without a network connection.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = _create(name, stages, image_size, pretrained=True)
    except Exception as error:  # download, cache, proxy, hub: each library has its own exceptions
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The pretrained weights of '{name}' could not be loaded ({reason}). Give a local file "
            f"with --data.weights FILE, or --data.weights random to try things out."
        ) from error
    return _without_unused_stages(backbone)


def weights_file(path: Path, name: str) -> Path:
    """Return a file of weights, in a folder of such files the one named like the backbone.

    Args:
        path: A file, or a folder of files of several backbones.
        name: Model name of timm; a file may leave out the tag behind its dot.

    Raises:
        MissingInputError: If the folder has no file of that name.
    """
    if not path.is_dir():
        return path
    stems = (name, name.partition(".")[0])
    files = (path / f"{stem}{suffix}" for stem in stems for suffix in WEIGHT_SUFFIXES)
    found = next(filter(Path.is_file, files), None)
    if found is None:
        raise MissingInputError(
            f"No weights of '{name}' in '{path}'. Put them there as "
            f"{name}{WEIGHT_SUFFIXES[0]}, or give their file."
        )
    return found


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Fill a network from a weights file of timm or a checkpoint of omiad.

    Every weight of the network must be in the file; what else the file holds, such as a
    classifier, is ignored.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If it cannot be read or does not fit.
    """
    if not path.is_file():
        raise MissingInputError(
            f"No weights at '{path}'. --data.weights takes 'pretrained', 'random' or the path of "
            f"a {', '.join(WEIGHT_SUFFIXES)} or {CHECKPOINT_SUFFIX} file."
        )
    if path.suffix not in (*WEIGHT_SUFFIXES, CHECKPOINT_SUFFIX):
        raise InputError(
            f"'{path}' is no weights file by its name. --data.weights takes a "
            f"{', '.join(WEIGHT_SUFFIXES)} or {CHECKPOINT_SUFFIX} file."
        )
    try:
        stored = _read(path)
    except Exception as error:  # unpickling and safetensors raise many kinds
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The weights in '{path}' cannot be read ({reason}). Only tensors are loaded, never "
            f"pickled code; save a plain state dict."
        ) from error
    _fill(backbone, stored, path)


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix != CHECKPOINT_SUFFIX:
        loaded: Mapping[str, Tensor] = load_timm_file(str(path), use_ema=False, weights_only=True)
        return loaded
    # Mapped, so that only the backbone's part of a large checkpoint is read.
    checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    marker = f"{EXTRACTOR_PREFIX}backbone."
    return {
        key.rpartition(marker)[2]: value
        for key, value in checkpoint["state_dict"].items()
        if marker in key
    }


def _fill(backbone: nn.Module, stored: Mapping[str, Tensor], path: Path) -> None:
    state = backbone.state_dict()
    stored = _converted(backbone, stored)
    by_name = {_plain(key): value for key, value in stored.items()}
    found = {key: by_name[_plain(key)] for key in state if _plain(key) in by_name}
    # The counter of batch norm's running averages has no effect on a frozen network.
    missing = [key for key in state if key not in found and "num_batches_tracked" not in key]
    unlike = [key for key in found if found[key].shape != state[key].shape]
    if missing or unlike:
        wrong = [*(f"{key} is missing" for key in missing), *(f"{key} differs" for key in unlike)]
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(
            f"The weights in '{path}' do not fit the backbone: {'; '.join(wrong[:4])}{more}. Give "
            f"the file of the model that --data.backbone names, in timm's naming."
        )
    backbone.load_state_dict(state | found)


def _converted(backbone: nn.Module, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Let timm fit stored positions to another image size, where it keeps the network whole."""
    inner = getattr(backbone, "model", None)
    convert = getattr(sys.modules[type(inner).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return stored
    converted: Mapping[str, Tensor] = convert(
        {key.removeprefix("model."): value for key, value in stored.items()}, inner
    )
    return converted


def _plain(key: str) -> str:
    # For its feature maps timm flattens `layer1.0` to `layer1_0`, or wraps the network as `model`.
    return key.removeprefix("model.").replace(".", "_")


def _without_unused_stages(backbone: nn.Module) -> nn.Module:
    # Alone among timm's families this one computes all stages, even those after the last wanted.
    if isinstance(backbone, EfficientNetFeatures):
        last = max(info["stage"] for info in backbone.feature_info.get_dicts())
        backbone.blocks = backbone.blocks[:last]
    return backbone
