"""Checkpoint files: their entries, and reading and writing one as plain data."""

import io
from pathlib import Path
from typing import Any

import torch

from omiad.errors import InputError, MissingInputError
from omiad.files import whole_file

CHECKPOINT_KEY = "omiad"
"""Entry of a checkpoint that holds everything but weights, as plain data."""

CHECKPOINT_FORMAT = 2
"""Number of the layout of that entry; a change of the layout raises it."""

STATE_PREFIX = "detector."
"""Prefix of the detector's weights in the state dict of a checkpoint."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint as plain data, with its tensors mapped from the file.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If omiad did not write the file, or wrote it in another format.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"No checkpoint at '{path}'. Give the path of a .ckpt file that `omiad fit` wrote, "
            f"usually <run folder>/checkpoints/last.ckpt."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load has no common error for a foreign file
        raise InputError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}). The file may be "
            f"truncated or come from another program; give a .ckpt file that `omiad fit` wrote."
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise InputError(
            f"'{path}' is not a checkpoint of omiad. Give a .ckpt file that `omiad fit` wrote."
        )
    check_format(checkpoint[CHECKPOINT_KEY], f"'{path}'")
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


def check_format(record: dict[str, Any], name: str) -> None:
    """Reject the checkpoint called `name` if its entry `CHECKPOINT_KEY` has another format."""
    if record.get("format") != CHECKPOINT_FORMAT:
        raise InputError(
            f"{name} was written by omiad {record.get('version', 'of unknown version')} in another "
            f"checkpoint format. Use that version of omiad, or train the model again."
        )
