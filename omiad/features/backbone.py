"""The timm network behind the features, and its weights."""

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models.efficientnet import EfficientNetFeatures
from torch import Tensor, nn

from omiad.archive import read_archive
from omiad.errors import InputError, MissingInputError
from omiad.names import one_line
from omiad.schema import conform

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
CHECKPOINT_SUFFIX = ".ckpt"


def build_backbone(
    name: str, stages: Sequence[int] | None, *, image_size: int, seed: int, pretrained: bool
) -> nn.Module:
    """Build a timm network that returns its feature maps.

    By default, `stages` (in timm's numbering) are the maps with a stride of at most 16, as in the
    paper, or four evenly spaced blocks of a plain ViT, as in DPT. The weights are random unless
    those that timm publishes are wanted; torch's global random state is left as it was.
    """
    # A name with another character could make timm download a model or read a folder.
    if not (re.fullmatch(r"\w+(\.\w+)?", name) and timm.is_model(name.partition(".")[0])):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.0)
        raise InputError(
            f"timm {timm.__version__} has no backbone '{one_line(name)[:80]}'. Similar names: "
            f"{', '.join(near)}."
        )
    with torch.random.fork_rng(devices=[]):
        try:
            if stages is None:
                stages = _default_stages(name, image_size)
            torch.manual_seed(seed)  # noqa: TID251 (timm initialises from torch's global state)
            backbone: nn.Module = _create(name, stages, image_size)
        except Exception as error:  # timm raises whatever the model's own code raises
            raise InputError(
                f"timm cannot return the feature maps {list(stages or ())} of backbone '{name}' "
                f"({error}). Check the tag after the dot, or choose other --data.stages."
            ) from error
        try:
            if pretrained:
                backbone = _create(name, stages, image_size, pretrained=True)
        except Exception as error:  # each library between here and the hub has its own exceptions
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"The pretrained weights of '{name}' could not be loaded ({reason}). Give a local "
                f"file with --data.weights FILE, or --data.weights random to try things out."
            ) from error
    # Only this family of timm computes the stages after the last one that is returned.
    if isinstance(backbone, EfficientNetFeatures):
        last = max(info["stage"] for info in backbone.feature_info.get_dicts())
        backbone.blocks = backbone.blocks[:last]
    return backbone


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
        return [len(strides) * (i + 1) // 4 - 1 for i in range(4)]
    return [i for i, stride in enumerate(strides) if stride <= 16]


def load_weights(backbone: nn.Module, path: Path, name: str) -> None:
    """Fill a network from a file of weights in timm's naming or from a checkpoint of omiad.

    Every weight of the network must be in the file; other weights in the file, such as those of a
    classifier, are ignored. A path of a folder stands for the file in it that is named like the
    model (`name`), with or without the tag after the dot.
    """
    path = _weights_file(path, name)
    try:
        stored = _read(path)
    except Exception as error:  # unpickling and safetensors raise many kinds
        reason = one_line(str(error).partition("\n")[0])
        raise InputError(
            f"The weights in '{path}' cannot be read ({reason}). Only tensors are loaded, never "
            f"pickled code; save a plain state dict as .safetensors, or by torch.save."
        ) from error
    fill(backbone, stored, source=path)


def fill(backbone: nn.Module, stored: Mapping[str, Tensor], *, source: str | Path) -> None:
    """Fill a network with stored weights in timm's naming; `source` says where they come from."""
    state = backbone.state_dict()
    by_name = {_plain(key): value for key, value in _converted(backbone, stored).items()}
    found = {key: by_name[_plain(key)] for key in state if _plain(key) in by_name}
    # The batch counters of batch norm have no effect on a frozen network.
    missing = [key for key in state if key not in found and "num_batches_tracked" not in key]
    differing = [key for key in found if found[key].shape != state[key].shape]
    wrong = [*(f"{key} is missing" for key in missing), *(f"{key} differs" for key in differing)]
    wrong += [f"{key} is not finite" for key in found if not found[key].isfinite().all()]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise InputError(
            f"The weights in '{source}' do not fit the backbone: {'; '.join(wrong[:4])}{more}. "
            f"Give the file of the model that --data.backbone names, in timm's naming."
        )
    backbone.load_state_dict(state | found)


def _weights_file(path: Path, name: str) -> Path:
    if path.is_dir():
        stems = (name, name.partition(".")[0])
        files = [path / f"{stem}{suffix}" for stem in stems for suffix in WEIGHT_SUFFIXES]
        if found := next(filter(Path.is_file, files), None):
            return found
        raise MissingInputError(
            f"No weights of '{name}' in '{path}'. Put them there as {files[0].name}, or give the "
            f"path of their file."
        )
    known = f"a {', '.join(WEIGHT_SUFFIXES)} or {CHECKPOINT_SUFFIX} file"
    if not path.is_file():
        raise MissingInputError(
            f"No weights at '{path}'. --data.weights takes 'pretrained', 'package', 'random' or "
            f"the path of {known}."
        )
    if path.suffix not in (*WEIGHT_SUFFIXES, CHECKPOINT_SUFFIX):
        raise InputError(f"'{path}' is not a file of weights. --data.weights takes {known}.")
    return path


def _read(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name; mapped, so that unused parts are not read."""
    if path.suffix == ".safetensors":
        stored: Any = load_file(path)
    else:
        stored = read_archive(path)
    marker = "extractor.backbone."
    if isinstance(stored, dict):
        stored = next((stored[k] for k in ("state_dict", "model") if k in stored), stored)
    conform(stored, dict[str, Any], where=f"'{path}'")
    tensors = {key: value for key, value in stored.items() if isinstance(value, Tensor)}
    if path.suffix == CHECKPOINT_SUFFIX:
        return {k.rpartition(marker)[2]: v for k, v in tensors.items() if marker in k}
    return {key.removeprefix("module."): value for key, value in tensors.items()}


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
