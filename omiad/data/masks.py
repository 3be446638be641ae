"""Defect masks: which pixels a mask file marks, whatever program wrote it."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops
from scipy.ndimage import label, maximum, maximum_filter, minimum_filter
from torch import Tensor

from omiad.errors import InputError
from omiad.photographs.opening import opened, upright, upright_size

_LOSSY = ("JPEG", "MPO")
"""Pillow's names of the formats that blur edges."""

_MAX_NUMBER = 31
"""Highest number of a class; a mask whose highest level is above draws levels of grey."""

_MAX_CLASSES = 8
"""Levels of grey that can be classes; a mask with more has soft edges."""

_FAINTEST = 0.25
"""Part of the highest level above which a region of a soft mask is a defect, not a trace."""


class MaskSizeError(InputError):
    """A defect mask and its photograph differ in size."""


class Mask(NamedTuple):
    """What a mask file marks, and how it was drawn."""

    defective: NDArray[np.bool_]  # (H, W)
    num_levels: int  # different values of its pixels
    is_lossy: bool  # JPEG
    is_soft: bool  # cut at half of the level, instead of at 0


def read_mask(masks: Sequence[Path], size: int, *, image: Path) -> Tensor:
    """Read the masks of a photograph (size, size), bool, and resize them, nearest neighbour.

    Masks are united before they are resized. `image` is the photograph. See `open_mask` for what a
    mask marks.

    Raises:
        MissingInputError: If a file does not exist.
        MaskSizeError: If a mask and the photograph differ in size.
        InputError: If a file is corrupt.
    """
    binary = Image.fromarray(load_mask(masks, image=image).astype(np.uint8))
    resized = binary.resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized)) != 0


def load_mask(masks: Sequence[Path], *, image: Path) -> NDArray[np.bool_]:
    """Read and unite masks (H, W) at their own size; otherwise like `read_mask`."""
    return unite({path: open_mask(path).defective for path in masks}, image=image)


def unite(masks: dict[Path, NDArray[np.bool_]], *, image: Path) -> NDArray[np.bool_]:
    """Unite what at least one mask (H, W) marks; each must have the size of the photograph.

    Raises:
        MaskSizeError: If a mask and the photograph differ in size.
    """
    with opened(image) as file:
        width, height = upright_size(file)
    for path, mask in masks.items():
        if mask.shape != (height, width):
            raise MaskSizeError(
                f"The mask '{path}' is {mask.shape[1]} x {mask.shape[0]} pixels, but its image "
                f"'{image}' is {width} x {height}. Export the mask at the size of its image."
            )
    return np.asarray(np.stack([*masks.values()]).any(0))


def open_mask(path: Path) -> Mask:
    """Read a mask file and decide which pixels are defective.

    Every pixel that is not black is defective: masks of 255 (MVTec AD, MPDD, prepared VisA), of
    class numbers up to 31 (VisA has 1 to 9) and of a few colours or greys work alike. Transparent
    pixels lie on black.

    In a soft mask, pixels above half of the highest level of their region are defective, so that a
    blurred edge stays where it was drawn and a faint defect beside a bright one is kept. A mask is
    soft if it is a JPEG, if it has more than 8 levels, or if most of its grey pixels lie between a
    darker and a brighter neighbour. Real-IAD has such masks in its smaller sizes; its evaluation
    cuts them at half too (adeval 1.1.0, `maskimg > 127`).

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the file is corrupt, or has pixels that are no finite numbers.
    """
    with opened(path) as file:
        is_lossy, grey = file.format in _LOSSY, _grey(upright(file))
    if not np.isfinite(grey).all():
        raise InputError(f"The mask '{path}' has pixels that are not finite. Export it again.")
    marked = grey != 0
    box = _box(marked)
    inner = grey[box]
    black = [0] if inner.size < grey.size else []  # all that lies outside of the box
    levels = np.union1d(inner, np.array(black, inner.dtype))
    is_soft = len(levels) > 2 and (is_lossy or _is_soft(inner, levels))
    if is_soft:
        marked[box] = _above_half(inner)
    return Mask(marked, len(levels), is_lossy, is_soft)


def _grey(mask: Image.Image) -> NDArray[Any]:
    """Return the brightest channel (H, W) of a mask, over black where the mask is transparent."""
    if mask.mode == "F" or mask.mode.startswith("I"):
        return np.array(mask)
    if mask.mode in ("1", "L") and "transparency" not in mask.info:
        return np.array(mask)
    # Black may be any entry of a palette, and an opaque alpha channel is no defect.
    red, green, blue, alpha = mask.convert("RGBA").split()
    grey = np.array(reduce(ImageChops.lighter, (red, green, blue)))
    return grey if alpha.getextrema()[0] == 255 else grey * (np.array(alpha) / np.float32(255))


def _box(marked: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the smallest box that holds all marked pixels (H, W); empty if none is marked."""
    sides = (np.flatnonzero(marked.any(axis)) for axis in (1, 0))
    rows, columns = (slice(*side[[0, -1]] + (0, 1)) if len(side) else slice(0) for side in sides)
    return rows, columns


def _is_soft(grey: NDArray[Any], levels: NDArray[Any]) -> bool:
    """Return whether the levels of a mask without losses are those of soft edges."""
    if levels[-1] <= _MAX_NUMBER and (levels == levels.round()).all():
        return False
    if len(levels) > _MAX_CLASSES:
        return True
    around = np.pad(grey, 1).astype(np.float32)
    lower, upper = (f(around, 3)[1:-1, 1:-1] for f in (minimum_filter, maximum_filter))
    between = (lower < grey) & (grey < upper)
    middle = (grey > 0) & (grey < levels[-1])
    return bool(between[middle].mean() > 0.5)


def _above_half(grey: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels above half of the highest level in their region (H, W)."""
    regions, count = label(grey > _FAINTEST * grey.max(), structure=np.ones((3, 3)))
    peaks = np.zeros(count + 1, np.float32)
    peaks[1:] = maximum(grey.astype(np.float32), regions, np.arange(1, count + 1))
    return np.asarray((regions > 0) & (grey > peaks[regions] / 2))
