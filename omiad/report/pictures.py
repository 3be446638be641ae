"""Pictures of a page: thumbnails, maps and masks, of a bounded size all together."""

import base64
import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from omiad.data.images import load_image
from omiad.errors import InputError
from omiad.report.colors import heat

Where = Literal["embedded", "folder"]

SIDES = {"embedded": 288, "folder": 640}
"""Longer side of a photograph, in pixels."""

MAX_MEGABYTES = {"embedded": 20.0, "folder": 200.0}
"""Most that all pictures take if nothing else is asked for; the larger ones have more room."""

FOLDER = "pictures"
"""Name of the folder beside the page."""

_TRUTH = [0, 0, 0, 255, 255, 255, 0, 229, 255, 0, 34, 51]
"""Palette of a mask: nothing, a defective pixel, and two edges that show on dark and on bright."""

_OPACITY = bytes([0, 50, 255, 255])


class Album:
    """Takes pictures until they are as large together as they may be.

    Args:
        folder: Folder of the page.
        where: In the page itself, or in a folder beside it.
        max_megabytes: Most that all pictures take in the page or in the folder, in 10**6 bytes.

    Raises:
        InputError: If there is no room at all.
    """

    def __init__(self, folder: Path, *, where: Where, max_megabytes: float) -> None:
        if not max_megabytes > 0:
            raise InputError(f"--max_megabytes must be above 0, but got {max_megabytes:g}.")
        self.where: Where = where
        self.side = SIDES[where]
        self.num_bytes = 0
        self._folder = folder / FOLDER
        self._max_bytes = max_megabytes * 1e6
        self._count = 0

    def take(self, *pictures: tuple[bytes, str] | None) -> list[str | None] | None:
        """Return the address of each picture, or None if they do not fit any more.

        Args:
            pictures: Content and suffix of each; None stays None.
        """
        larger = 4 / 3 if self.where == "embedded" else 1
        size = sum(int(larger * len(picture[0])) + 40 for picture in pictures if picture)
        if self.num_bytes + size > self._max_bytes:
            return None
        self.num_bytes += size
        return [None if picture is None else self._put(*picture) for picture in pictures]

    def _put(self, content: bytes, suffix: str) -> str:
        if self.where == "embedded":
            kind = "jpeg" if suffix == "jpg" else suffix
            return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{self._count:05}.{suffix}"  # never a name from outside
        self._count += 1
        (self._folder / name).write_bytes(content)
        return f"{FOLDER}/{name}"


def photograph(path: Path, side: int, *, kept_part: float = 1.0) -> tuple[bytes, float] | None:
    """Read a photograph as a small JPEG.

    Args:
        path: The file.
        side: Its longer side in pixels.
        kept_part: Part of each side that the protocol cuts out of the centre.

    Returns:
        Content, and width by height; None where the file has gone or cannot be read.
    """
    try:
        image = Image.fromarray(load_image(path))
    except InputError:
        return None
    return thumbnail(image, side, kept_part=kept_part), image.width / image.height


def thumbnail(image: Image.Image, side: int, *, kept_part: float = 1.0) -> bytes:
    """Return the centre of an image as a small JPEG."""
    cut_x, cut_y = (round(s * (1 - kept_part) / 2) for s in image.size)
    image = image.crop((cut_x, cut_y, image.width - cut_x, image.height - cut_y))
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return _encoded(image.resize(size, Image.Resampling.BILINEAR), "JPEG", quality=82)


def map_picture(level: NDArray[np.uint8]) -> bytes:
    """Colour a map (h, w) whose 0 and 255 are the ends of the scale."""
    return _encoded(Image.fromarray(heat(level / 255)), "JPEG", quality=88, subsampling=0)


def plain_picture(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels (h, w, 3) as a JPEG."""
    return _encoded(Image.fromarray(pixels), "JPEG", quality=85)


def mask_picture(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as a PNG to lay over its image: a bright and a dark edge, and a veil."""
    white = Image.fromarray(mask.astype(np.uint8) * 255)
    bright, dark = (np.asarray(white.filter(ImageFilter.MaxFilter(size))) > 0 for size in (5, 7))
    indices = Image.fromarray(np.select([mask, bright, dark], [1, 2, 3], 0).astype(np.uint8), "P")
    indices.putpalette(_TRUTH)
    return _encoded(indices, "PNG", transparency=_OPACITY, optimize=True)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
