"""Reading of image files in batches."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omiad.errors import InputError

T = TypeVar("T")

READING_RULES = 1
"""Number of the rules that turn an image file into pixels; a change of theirs must raise it."""


class ImageFiles(Dataset[Tensor]):
    """Image files as pixels (3, size, size), uint8.

    Args:
        paths: The files.
        size: Side of the images in pixels.
        read: Reads one file at that size.
    """

    def __init__(
        self, paths: Sequence[Path], size: int, read: Callable[[Path, int], Tensor]
    ) -> None:
        # One array, which worker processes share; a list they would copy by counting references.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.size = size
        self.read = read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.read(Path(os.fsdecode(self._paths[index])), self.size)


class FileLoader(DataLoader[T]):
    """A DataLoader that hands on a worker's InputError as the sentence it is.

    torch puts the worker's traceback in front of it. Workers leave the objects they were born with
    alone: collecting garbage among them would copy their pages.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("worker_init_fn", _freeze)
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:
            # torch's exception holds its own traceback, and by it the workers: let go of them.
            error.__traceback__ = None
            sentence = str(error).rpartition("InputError: ")[2].strip()
            raise type(error)(sentence) from None


def _freeze(_: int) -> None:
    gc.freeze()
