"""The timm network behind the features, and its weights."""

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
"""Prefix of the extractor's weights in a checkpoint of omiad, below the module that holds it."""

COARSEST_STRIDE = 16
"""Stride of the coarsest feature map that is used by default, as in the paper."""

NUM_BLOCKS = 4
"""Number of blocks of a plain ViT that are used by default, evenly spaced, as in DPT."""


def build_backbone(
    name: str, stages: Sequence[int] | None, seed: int, *, image_size: int
) -> nn.Module:
    """Build a timm network with random weights that returns its feature maps.

    Args:
        name: Model name in timm, with or without a tag of weights.
        stages: Feature maps to return, in timm's numbering. By default those with a stride of at
            most 16 or, if all have one stride (a plain ViT), four evenly spaced blocks.
        seed: Seed of the weights; torch's global random state is left as it was.
        image_size: Side of the images, for networks that are built for one size.

    Raises:
        InputError: If timm does not have the model, the tag or the stages.
    """
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.0)
        raise InputError(
            f"timm {timm.__version__} has no backbone '{name}'. Similar names: {', '.join(near)}."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            if stages is None:
                stages = _default_stages(name, image_size)
            torch.manual_seed(seed)  # noqa: TID251 (timm initialises from torch's global state)
            backbone = _create(name, stages, image_size)
    except Exception as error:  # timm raises whatever the model's own code raises
        raise InputError(
            f"timm cannot return the feature maps {list(stages or ())} of backbone '{name}' "
            f"({error}). Check the tag after the dot, or choose other --data.stages."
        ) from error
    return _without_unused_stages(backbone)


def stages_of(backbone: nn.Module) -> list[int]:
    """Return which of its feature maps a network returns, in timm's numbering."""
    info: Any = backbone.feature_info
    return list(info.out_indices)


def _create(name: str, stages: Sequence[int] | None, image_size: int, **arguments: Any) -> Any:
    config = timm.models.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and config.input_size[-1] != image_size:
        arguments["img_size"] = image_size  # the network has learned positions
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
    """Build the network with the weights that timm publishes, downloaded or from timm's cache.

    Raises:
        InputError: If the weights cannot be loaded, for example without a network connection.
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
    """Return a file of weights: the path itself or, in a folder, the file named like the backbone.

    Args:
        path: A file, or a folder with files of several backbones.
        name: Model name in timm; the name of the file may omit the tag after the dot.

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
            f"{name}{WEIGHT_SUFFIXES[0]}, or give the path of their file."
        )
    return found


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Fill a network from a file of weights in timm's naming or from a checkpoint of omiad.

    Every weight of the network must be in the file; other weights in the file, such as those of a
    classifier, are ignored.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the file cannot be read or does not fit.
    """
    known = f"a {', '.join(WEIGHT_SUFFIXES)} or {CHECKPOINT_SUFFIX} file"
    if not path.is_file():
        raise MissingInputError(
            f"No weights at '{path}'. --data.weights takes 'pretrained', 'random' or the path of "
            f"{known}."
        )
    if path.suffix not in (*WEIGHT_SUFFIXES, CHECKPOINT_SUFFIX):
        raise InputError(f"'{path}' is not a file of weights. --data.weights takes {known}.")
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
    by_name = {_plain(key): value for key, value in _converted(backbone, stored).items()}
    found = {key: by_name[_plain(key)] for key in state if _plain(key) in by_name}
    # The batch counters of batch norm have no effect on a frozen network.
    missing = [key for key in state if key not in found and "num_batches_tracked" not in key]
    differing = [key for key in found if found[key].shape != state[key].shape]
    wrong = [*(f"{key} is missing" for key in missing), *(f"{key} differs" for key in differing)]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(
            f"The weights in '{path}' do not fit the backbone: {'; '.join(wrong[:4])}{more}. Give "
            f"the file of the model that --data.backbone names, in timm's naming."
        )
    backbone.load_state_dict(state | found)


def _converted(backbone: nn.Module, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Let timm resize stored position embeddings to the image size of the network, if it can."""
    inner = getattr(backbone, "model", None)
    convert = getattr(sys.modules[type(inner).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return stored
    plain = {key.removeprefix("model."): value for key, value in stored.items()}
    converted: Mapping[str, Tensor] = convert(plain, inner)
    return converted


def _plain(key: str) -> str:
    # To return feature maps, timm renames `layer1.0` to `layer1_0` or wraps the network as `model`.
    return key.removeprefix("model.").replace(".", "_")


def _without_unused_stages(backbone: nn.Module) -> nn.Module:
    # Only this family of timm computes the stages after the last one that is returned.
    if isinstance(backbone, EfficientNetFeatures):
        last = max(info["stage"] for info in backbone.feature_info.get_dicts())
        backbone.blocks = backbone.blocks[:last]
    return backbone
