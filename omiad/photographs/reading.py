"""Files to photographs: at their own size, or resized to the canvas that the model sees."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omiad.photographs.canvas import fitted
from omiad.photographs.conversion import WHITE_LEVEL, to_rgb
from omiad.photographs.opening import opened
from omiad.tiling import WHOLE, Tiles, Tiling


def read_photograph(
    path: Path, size: int, *, tiles: Tiles = WHOLE, white_level: int = WHITE_LEVEL
) -> tuple[Tensor, tuple[int, int]]:
    """Read a photograph as `read_image` does, together with its own size.

    Returns:
        The photograph (3, H, W), uint8, and the width and height in pixels that it had after
        its EXIF rotation.
    """
    rgb = _read_rgb(path, white_level)
    return resized(rgb, size, tiles=tiles, name=f"'{path}'"), rgb.size


def read_image(
    path: Path, size: int, *, tiles: Tiles = WHOLE, white_level: int = WHITE_LEVEL
) -> Tensor:
    """Read a photograph as 8-bit RGB and resize it, bilinear, to a square or a canvas of tiles.

    The result is (3, size, size), or (3, H, W) with the height and width of `Tiling.canvas`.
    `to_rgb` says how colours are converted. Only the first page of a file is read. The aspect ratio
    is not kept, as in the protocols of MVTec AD. JPEG is decoded at full size; draft mode would
    take half of the time but change pixels by up to two levels.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If `opened` or `to_rgb` refuses the file, or it is too small for the tiles.
    """
    return read_photograph(path, size, tiles=tiles, white_level=white_level)[0]


def load_image(path: Path, *, white_level: int = WHITE_LEVEL) -> NDArray[np.uint8]:
    """Read a photograph (H, W, 3) at its own size; otherwise like `read_image`."""
    return np.array(_read_rgb(path, white_level))


def resized(
    rgb: Image.Image, size: int, *, tiles: Tiles = WHOLE, name: str = "The photograph"
) -> Tensor:
    """Resize an RGB image to a square (3, size, size), or to a canvas of tiles, uint8, bilinear.

    Raises:
        InputError: If the image, which messages call by the name, is too small for the tiles.
    """
    tiling = Tiling(tiles, size)
    tiling.check(*rgb.size, name)
    return torch.from_numpy(fitted(rgb, tiling.canvas))


def _read_rgb(path: Path, white_level: int) -> Image.Image:
    with opened(path) as file:
        return to_rgb(file, name=f"'{path}'", white_level=white_level)
