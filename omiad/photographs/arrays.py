"""Arrays and tensors to images, so that pixels in memory are read like those of a file."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omiad.errors import InputError
from omiad.photographs.conversion import check_wide_colour

Color = Literal["rgb", "bgr"]
"""Order of the colours in the last axis."""

CHANNELS = (1, 3, 4)
"""Numbers of channels: grayscale, colour, and colour with transparency."""


def image_of(
    pixels: NDArray[Any] | Tensor, *, name: str, color: Color, white_level: int
) -> Image.Image:
    """Return the image that a file with these pixels would hold.

    Args:
        pixels: An array (H, W) or (H, W, C), or a tensor, which may also be (C, H, W); C is 1, 3 or
            4. Where a tensor could be either, such as (3, 8, 3), it is (C, H, W). uint8; uint16, of
            which grayscale is scaled by the white level and colour keeps its high byte; or floats
            in 0..1, which are rounded to 8 bits.
        name: What messages call the photograph.
        color: Order of the colours.
        white_level: Value of 16-bit grayscale that becomes white.

    Raises:
        InputError: If the pixels have another shape or type, hold NaN, are floats outside 0..1, or
            are 16-bit colour and a white level is given.
    """
    array = _from_tensor(pixels, name) if isinstance(pixels, Tensor) else np.asarray(pixels)
    _check(array, name, given=pixels)
    if array.dtype.kind == "f":
        array = _from_floats(array, name)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3:
        if array.dtype.itemsize == 2:
            check_wide_colour(name, white_level)
            array = (array >> 8).astype(np.uint8)
        if color == "bgr":
            array = array[..., [2, 1, 0, 3][: array.shape[2]]]
    native = array.dtype.newbyteorder("=")
    return Image.fromarray(np.ascontiguousarray(array, dtype=native))


def _from_tensor(pixels: Tensor, name: str) -> NDArray[Any]:
    """Return a tensor (H, W), (H, W, C) or (C, H, W) as an array with the channels last."""
    if pixels.layout is not torch.strided or pixels.is_quantized or pixels.is_meta:
        raise _refusal(pixels, name)
    if pixels.dtype == torch.bfloat16:  # numpy has no such type
        pixels = pixels.float()
    array: NDArray[Any] = pixels.detach().cpu().resolve_conj().resolve_neg().numpy()
    return np.moveaxis(array, 0, 2) if array.ndim == 3 and len(array) in CHANNELS else array


def _from_floats(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    lowest, highest = array.min(), array.max()
    if np.isnan(lowest):
        raise InputError(f"{name} holds NaN. Give floats in 0..1.")
    if lowest < 0 or highest > 1:
        raise InputError(
            f"{name} holds floats from {lowest:g} to {highest:g}. Give floats in 0..1: divide them "
            f"by their white level, or convert them to uint8."
        )
    wide = array.astype(np.result_type(array, np.float32), copy=False)
    return (wide * 255).round().astype(np.uint8)


def _check(array: NDArray[Any], name: str, *, given: NDArray[Any] | Tensor) -> None:
    kind, num_bytes = array.dtype.kind, array.dtype.itemsize
    is_known = kind == "f" or (kind == "u" and num_bytes <= 2)
    is_shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in CHANNELS)
    if not (is_known and is_shaped and array.size):
        raise _refusal(given, name)


def _refusal(given: NDArray[Any] | Tensor, name: str) -> InputError:
    is_tensor, shape = isinstance(given, Tensor), tuple(given.shape)
    kind = "a tensor" if is_tensor else "an array"
    dtype = str(given.dtype).removeprefix("torch.")
    order = "(H, W, C) or (C, H, W)" if is_tensor else "(H, W, C)"
    several = " Give several photographs as a list." if len(shape) == 4 else ""
    return InputError(
        f"{name} is {kind} of {dtype} and shape {shape}. Give (H, W) or {order}, where C is 1, 3 "
        f"or 4, of uint8, uint16 or floats in 0..1.{several}"
    )
