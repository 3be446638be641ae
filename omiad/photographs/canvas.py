"""A photograph as an exported model takes it; this file and what it imports need no torch."""

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omiad.photographs.conversion import WHITE_LEVEL, to_rgb
from omiad.photographs.opening import check_whole, decoding, opened


def to_canvas(
    photograph: str | PathLike[str] | Image.Image, size: int, *, white_level: int = WHITE_LEVEL
) -> NDArray[np.uint8]:
    """Read a photograph and resize it to the canvas of an exported model.

    The photograph is turned upright by its EXIF orientation, converted to 8-bit RGB and resized to
    a square, bilinear and without keeping its proportions, as `omiad predict` does.

    Args:
        photograph: A path or an image of Pillow.
        size: Side of the canvas in pixels; an export knows it as `image_size`.
        white_level: Value of 16-bit grayscale that becomes white; an export knows it by this name.

    Returns:
        Pixels (3, size, size), uint8.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the photograph cannot be read.
    """
    if isinstance(photograph, Image.Image):
        name = "The photograph"
        with decoding(name):
            check_whole(photograph)
            return fitted(to_rgb(photograph, name=name, white_level=white_level), (size, size))
    path = Path(photograph)
    with opened(path) as file:
        return fitted(to_rgb(file, name=f"'{path}'", white_level=white_level), (size, size))


def fitted(rgb: Image.Image, canvas: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an RGB image, bilinear, to a height and width; the result is (3, H, W), uint8."""
    pixels = np.asarray(rgb.resize(canvas[::-1], Image.Resampling.BILINEAR))
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
