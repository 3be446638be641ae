"""Checkpoint files: what they hold, and the one door through which they are read as data."""

import hashlib
import io
import re
import zlib
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import torch
from torch import Tensor

from omiad.archive import ArchiveError, read_archive
from omiad.diffusion import Parameterization
from omiad.errors import InputError, MissingInputError
from omiad.features.extractor import Grid, Precision
from omiad.features.normalization import FeatureNorm
from omiad.files import whole_file
from omiad.names import one_line
from omiad.schema import conform
from omiad.scoring import Memory

CHECKPOINT_KEY = "omiad"
"""Entry of a checkpoint that holds everything but weights, as plain data."""

CHECKPOINT_FORMAT = 3
"""Number of the layout of that entry; a change of the layout raises it."""

STATE_PREFIX = "detector."
"""Prefix of the detector's weights in the state dict of a checkpoint."""

SEALED = (
    CHECKPOINT_KEY,
    "state_dict",
    "hyper_parameters",
    "datamodule_hyper_parameters",
    "optimizer_states",
    "lr_schedulers",
    "loops",
)
"""Entries of a checkpoint that its digest covers: all that omiad uses."""


class ExtractorSpec(TypedDict):
    """Arguments of a `FeatureExtractor`, without its weights."""

    backbone: str
    image_size: int
    feature_size: int
    stages: list[int]
    grid: Grid
    precision: Precision
    white_level: int
    tiles: NotRequired[list[int]]
    fold: NotRequired[int]


class NetworkSpec(TypedDict):
    """Class of a network, and the arguments that build it."""

    class_path: str
    init_args: dict[str, Any]


class ScoringSpec(TypedDict):
    """Arguments of a `Scoring`."""

    blur_sigma: float
    pool_size: int
    memory_size: int
    memory: NotRequired[Memory]
    residual_weight: float
    residual_whitening: NotRequired[float]


class _Added(TypedDict, total=False):
    added: list[str]  # products with a memory of their own; absent in early files of the format
    remembered: list[str]  # products of a `ProductMemory`, likewise


class DetectorSpec(_Added):
    """Everything but the weights of a `Detector`; see `Detector.spec`."""

    kind: Literal["AMDM", "OmiAD"]
    t_init: int
    num_steps: int
    eta: float
    num_noise_draws: int
    seed: int
    extractor: ExtractorSpec
    extractor_weights_hash: str
    feature_norm: FeatureNorm
    network: NetworkSpec
    parameterization: Parameterization
    scoring: ScoringSpec
    decoder_width: int | None
    teacher_hash: str | None
    calibrated_for: str | None
    products: list[str]
    false_alarms: float | None


class Record(TypedDict):
    """The entry `CHECKPOINT_KEY`; a new entry here belongs to a new `CHECKPOINT_FORMAT`."""

    format: int
    version: str
    module: str
    trained: str | None
    categories: list[str]
    detector: DetectorSpec
    code: list[str]
    progress: dict[str, int]
    digest: str


class _Entries(TypedDict, total=False):
    hyper_parameters: dict[str, Any]
    datamodule_hyper_parameters: dict[str, Any]


class Checkpoint(_Entries):
    """What omiad uses of a checkpoint of Lightning."""

    epoch: int
    global_step: int
    omiad: Record
    state_dict: dict[str, Tensor]
    loops: dict[str, Any]
    callbacks: dict[str, Any]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as plain data, with its tensors mapped from the file.

    Nothing that the file names is imported. The file is compared with its checksums and its digest,
    and all that omiad uses has the right type.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the file is damaged, or if omiad did not write the file, or wrote it in
            another format.
    """
    path = Path(path)
    name = one_line(str(path))
    if not path.is_file():
        raise MissingInputError(
            f"No checkpoint at '{name}'. Give the path of a .ckpt file that `omiad fit` wrote, "
            f"usually <run folder>/checkpoints/last.ckpt."
        )
    try:
        checkpoint = read_archive(path)
    except ArchiveError as error:
        raise InputError(
            f"'{name}' cannot be read as a checkpoint: {error}. Copy the file again, or give a "
            f".ckpt file that `omiad fit` wrote."
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise InputError(
            f"'{name}' is not a checkpoint of omiad. Give a .ckpt file that `omiad fit` wrote."
        )
    check(checkpoint, f"'{name}'")
    return checkpoint


def write_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint beside its final place, and rename it once it is whole on the disk.

    Raises:
        InputError: If the disk is full. A checkpoint that was there before stays intact.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()  # torch would hide the system's error, such as a full disk
    torch.save(checkpoint, content)
    with whole_file(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def check(checkpoint: dict[str, Any], name: str) -> None:
    """Reject the checkpoint called `name` if it is not whole, or not of this format."""
    record = conform(checkpoint[CHECKPOINT_KEY], dict[str, Any], where=f"{name}: {CHECKPOINT_KEY}")
    if record.get("format") != CHECKPOINT_FORMAT:
        version = one_line(str(record.get("version", "of unknown version"))[:40])
        raise InputError(
            f"{name} was written by omiad {version} in another checkpoint format. Use that version "
            f"of omiad, or train the model again."
        )
    if record.get("digest") != digest(checkpoint):
        raise InputError(
            f"{name} is damaged: its contents differ from the digest they were written with. Copy "
            f"the file again, or train the model again."
        )
    conform(checkpoint, Checkpoint, where=name)
    spec = record["detector"]
    for group, kind in (
        *((record, Record), (spec, DetectorSpec), (spec["extractor"], ExtractorSpec)),
        *((spec["network"], NetworkSpec), (spec["scoring"], ScoringSpec)),
    ):
        if unknown := group.keys() - kind.__annotations__.keys():
            shown = one_line(str(min(unknown, key=str)))[:80]
            raise InputError(
                f"{name} has an unknown entry '{shown}' in its {kind.__name__}. Use the version of "
                f"omiad that wrote it."
            )
    if not re.fullmatch(r"[2-9]\.\d+(\.\w+)*", str(checkpoint.get("pytorch-lightning_version"))):
        raise InputError(
            f"{name} names no version of Lightning from 2.0 on. Train the model again."
        )
    for key, tensor in checkpoint["state_dict"].items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{name} holds weights that are not finite ({one_line(key)[:80]}): the training "
                f"diverged. Give another checkpoint, or train again with a lower learning rate."
            )


def seal(checkpoint: dict[str, Any]) -> None:
    """Add the digest by which a reader notices that a checkpoint is not as it was written."""
    checkpoint[CHECKPOINT_KEY]["digest"] = digest(checkpoint)


def digest(checkpoint: dict[str, Any]) -> str:
    """Return a hash of all entries in `SEALED`, in hexadecimal, without the digest itself.

    The digest reveals damage. Whoever changes a checkpoint on purpose can write a new digest.
    """
    result = hashlib.sha256()
    record = {k: v for k, v in checkpoint[CHECKPOINT_KEY].items() if k != "digest"}
    left: list[Any] = [(checkpoint | {CHECKPOINT_KEY: record}).get(name) for name in SEALED[::-1]]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().flatten()
            crc = zlib.crc32(flat.view(torch.uint8).numpy().data)
            text = f"{value.dtype} {tuple(value.shape)} {crc}"
        elif isinstance(value, dict):
            text = f"dict of {len(value)}"
            left += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            text = f"{type(value).__name__} of {len(value)}"
            left += value
        else:
            text = repr(value)
        result.update(f"{text}\n".encode(errors="surrogatepass"))
    return result.hexdigest()


def check_tensors(
    given: dict[str, Tensor],
    wanted: dict[str, Tensor],
    name: str,
    *,
    free_rows: tuple[str, ...] = (),
) -> None:
    """Reject the tensors of the checkpoint called `name` that a model could not load.

    Args:
        given: The stored tensors.
        wanted: Tensors of the same names, shapes and dtypes; their values do not matter.
        name: The checkpoint, for the message.
        free_rows: Ends of the names of tensors that may have any number of rows.
    """
    wrong = [f"no '{key}'" for key in wanted.keys() - given.keys()]
    wrong += [f"an unknown '{one_line(key[:80])}'" for key in given.keys() - wanted.keys()]
    for key in wanted.keys() & given.keys():
        mine, other, skip = wanted[key], given[key], int(key.endswith(free_rows))
        alike = mine.dtype == other.dtype and mine.ndim == other.ndim
        if not alike or mine.shape[skip:] != other.shape[skip:]:
            wrong.append(f"'{key}' as {tuple(other.shape)} instead of {tuple(mine.shape)}")
    if wrong:
        shown = "; ".join([*sorted(wrong)[:3], *([f"{len(wrong) - 3} more"] * (len(wrong) > 3))])
        raise InputError(
            f"The weights of {name} do not fit its settings: it holds {shown}. The file "
            f"is damaged or was changed; give another checkpoint."
        )
