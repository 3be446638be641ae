"""Any photograph to 8-bit RGB: the one conversion that files, images and arrays share."""

import numpy as np
from PIL import Image

from omiad.errors import InputError
from omiad.photographs.opening import has_wide_colour, upright

WHITE_LEVEL = 65_535
"""Brightest value of a 16-bit photograph, unless its camera has fewer bits."""


def to_rgb(image: Image.Image, *, name: str, white_level: int = WHITE_LEVEL) -> Image.Image:
    """Decode an image, turn it upright, and convert it to 8-bit RGB.

    The EXIF orientation is applied. Grayscale is repeated to three channels. 16-bit grayscale is
    scaled from 0..white_level to 0..255; 16-bit colour keeps its high byte. Palettes and CMYK are
    converted to RGB. Transparency is dropped and the stored colour is kept.

    Args:
        image: The image, of any mode of Pillow but "F".
        name: What messages call the image.
        white_level: Value of 16-bit grayscale that becomes white.

    Raises:
        InputError: If the image has floating-point pixels, or 16-bit colour and a white level is
            given.
    """
    if has_wide_colour(image):
        check_wide_colour(name, white_level)
    image = upright(image)
    if image.mode == "F":
        raise InputError(
            f"{name} has floating-point pixels of unknown range. Convert it to 8 or 16 bits."
        )
    if image.mode.startswith("I"):  # 16 bits; Pillow opens some such files with 32-bit pixels
        wide = np.asarray(image).astype(np.float64).clip(0, white_level)
        image = Image.fromarray((wide / (white_level / 255)).round().astype(np.uint8))
    if image.mode == "P":  # a transparent palette that becomes RGB at once makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def check_wide_colour(name: str, white_level: int) -> None:
    """Refuse 16-bit colour where a white level is given.

    Raises:
        InputError: If the white level is not that of 16 bits.
    """
    if white_level != WHITE_LEVEL:
        raise InputError(
            f"{name} has 16-bit colour, of which only the high byte can be read, so "
            f"--data.white_level {white_level} cannot apply. Convert the image to 8 bits."
        )
