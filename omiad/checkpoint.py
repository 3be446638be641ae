"""Checkpoint files: one that omiad wrote, told from any other."""

from pathlib import Path
from typing import Any

import torch

from omiad.errors import InputError, MissingInputError

CHECKPOINT_KEY = "omiad"
"""Entry of a checkpoint that holds everything but weights, as plain data."""

STATE_PREFIX = "detector."
"""Prefix of the detector's weights in a checkpoint's state dict."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of omiad as plain data, its tensors mapped from the file.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If it is not a checkpoint written by omiad.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(
            f"No checkpoint at '{path}'. Give the path of a .ckpt file that `omiad fit` wrote, "
            f"usually <run folder>/checkpoints/last.ckpt."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch.load has no common error for a file that is not its own
        raise InputError(
            f"'{path}' cannot be read as a checkpoint ({type(error).__name__}). It may be "
            f"truncated or of another program; give a .ckpt file that `omiad fit` wrote."
        ) from error
    if not isinstance(checkpoint, dict) or CHECKPOINT_KEY not in checkpoint:
        raise InputError(
            f"'{path}' is not a checkpoint of omiad. Give a .ckpt file that `omiad fit` wrote."
        )
    return checkpoint
