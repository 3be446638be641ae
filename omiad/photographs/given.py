"""Photographs as Python programs have them: paths, images of Pillow, arrays and tensors."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omiad.errors import InputError
from omiad.photographs.arrays import Color, image_of
from omiad.photographs.conversion import WHITE_LEVEL, to_rgb
from omiad.photographs.opening import check_whole, decoding
from omiad.photographs.reading import read_photograph, resized
from omiad.tiling import WHOLE, Tiles

Photo: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
"""One photograph; see `Reader`."""

_ONE = (str, os.PathLike, Image.Image, np.ndarray, Tensor)


@dataclass(frozen=True)
class Reader:
    """Reads photographs of every kind like files, one after another or in batches.

    Attributes:
        size: Side of the square that photographs are resized to, or of each tile.
        batch_size: Most photographs in a batch.
        color: Order of the colours of arrays and tensors; files and images of Pillow know theirs.
        white_level: Value of 16-bit grayscale that becomes white.
        tiles: Rows and columns of tiles that photographs are cut into.

    Raises:
        InputError: If the batch size is below 1, or the order of colours is unknown.
    """

    size: int
    batch_size: int = 1
    color: Color = "rgb"
    white_level: int = WHITE_LEVEL
    tiles: Tiles = WHOLE

    def __post_init__(self) -> None:
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise InputError(
                f"batch_size must be a whole number of at least 1, but got {self.batch_size!r}."
            )
        if self.color not in (known := get_args(Color)):
            raise InputError(f"color must be one of {', '.join(known)}, but got {self.color!r}.")

    def read(
        self, photograph: Photo, name: str = "The photograph"
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return a photograph (3, H, W), uint8, and its own width and height, upright.

        Args:
            photograph: A path, an image of Pillow, or pixels as `image_of` takes them.
            name: What messages call it, unless it is a file.

        Raises:
            InputError: If it is none of these, cannot be read, or is too small for the tiles.
        """
        if isinstance(photograph, (str, os.PathLike)):
            path = Path(photograph)
            return read_photograph(path, self.size, tiles=self.tiles, white_level=self.white_level)
        if isinstance(photograph, Image.Image):
            with decoding(name):
                check_whole(photograph)
                rgb = to_rgb(photograph, name=name, white_level=self.white_level)
        elif isinstance(photograph, (np.ndarray, Tensor)):
            image = image_of(photograph, name=name, color=self.color, white_level=self.white_level)
            rgb = to_rgb(image, name=name, white_level=self.white_level)
        else:
            raise refusal(photograph, name)
        return resized(rgb, self.size, tiles=self.tiles, name=name), rgb.size

    def batches(
        self, photographs: Iterable[Photo]
    ) -> Iterator[tuple[Tensor, list[tuple[int, int]]]]:
        """Yield photographs (B, 3, H, W), uint8, with their own widths and heights.

        Photographs are taken only when their batch is asked for. Those before an unreadable one
        still come.

        Raises:
            InputError: If a photograph cannot be read.
        """
        batch: list[tuple[Tensor, tuple[int, int]]] = []
        for number, photograph in enumerate(photographs):
            try:
                batch.append(self.read(photograph, f"photographs[{number}]"))
            except InputError:
                if batch:
                    yield _stacked(batch)
                raise
            if len(batch) == self.batch_size:
                yield _stacked(batch)
                batch = []
        if batch:
            yield _stacked(batch)


def is_one(photographs: object) -> bool:
    """Return whether something is one photograph, rather than several.

    Raises:
        InputError: If it is neither, or an empty list.
    """
    if isinstance(photographs, _ONE):
        return True
    if not isinstance(photographs, (list, tuple, Iterator)):
        raise refusal(photographs, "The photograph")
    if isinstance(photographs, (list, tuple)) and not photographs:
        raise InputError(f"There is no photograph in an empty {type(photographs).__name__}.")
    return False


def refusal(given: object, name: str) -> InputError:
    """Return the error for something that is no photograph."""
    return InputError(
        f"{name} is of type {type(given).__name__}. Give a path, an image of Pillow, a numpy array "
        f"or a tensor, or a list or generator of these."
    )


def _stacked(
    batch: list[tuple[Tensor, tuple[int, int]]],
) -> tuple[Tensor, list[tuple[int, int]]]:
    images, sizes = zip(*batch, strict=True)
    return torch.stack(images), list(sizes)
