"""The timm network behind the features and where its weights come from."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

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


def build_backbone(name: str, stages: Sequence[int], seed: int) -> nn.Module:
    """Build a timm network that returns its feature maps, with random weights.

    Args:
        name: Model name of timm, with or without a weights tag.
        stages: Which of its feature maps, in timm's numbering.
        seed: Of the weights; torch's global random state is left as it was.

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
            backbone: nn.Module = timm.create_model(name, features_only=True, out_indices=stages)
    except Exception as error:  # timm raises whatever the model's own code runs into
        raise InputError(
            f"timm cannot give the feature maps {list(stages)} of backbone '{name}' ({error}). "
            f"Check the tag behind the dot, and choose other --data.stages."
        ) from error
    return _without_unused_stages(backbone)


def load_pretrained(name: str, stages: Sequence[int]) -> nn.Module:
    """Build the network with the weights that timm publishes, downloaded or from its cache.

    Raises:
        InputError: If they cannot be had, for example without a network connection.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            backbone: nn.Module = timm.create_model(
                name, features_only=True, out_indices=stages, pretrained=True
            )
    except Exception as error:  # download, cache, proxy, hub: each library has its own exceptions
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The pretrained weights of '{name}' could not be loaded ({reason}). Give a local file "
            f"with --data.weights FILE, or --data.weights random to try things out."
        ) from error
    return _without_unused_stages(backbone)


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


def _plain(key: str) -> str:
    # For its feature maps timm flattens `layer1.0` to `layer1_0`, or wraps the network as `model`.
    return key.removeprefix("model.").replace(".", "_")


def _without_unused_stages(backbone: nn.Module) -> nn.Module:
    # Alone among timm's families this one computes all stages, even those after the last wanted.
    if isinstance(backbone, EfficientNetFeatures):
        last = max(info["stage"] for info in backbone.feature_info.get_dicts())
        backbone.blocks = backbone.blocks[:last]
    return backbone
