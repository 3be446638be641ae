"""Pictures of a page: their colours, their encoding, and a limit on their total size."""

import base64
import io
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from omiad import files
from omiad.errors import InputError
from omiad.photographs import load_image

Pixels = NDArray[np.uint8]
Map = NDArray[np.floating[Any]]
Where = Literal["embedded", "folder"]

SIDES = {"embedded": 288, "folder": 640}
"""Longer side of a photograph in pixels."""

MAX_MEGABYTES = {"embedded": 20.0, "folder": 200.0}
"""Default limit of all pictures together, in 10**6 bytes."""

FOLDER = "pictures"
"""Name of the folder beside the page."""

UNFINISHED = ".unfinished"
"""File in that folder that is there until the page is written."""

_PALETTE = [(0, 0, 0), (255, 255, 255), (0, 229, 255), (0, 34, 51)]
_OPACITY = bytes([0, 50, 255, 255])
"""Colours of a mask: background, defect, and a bright and a dark edge around it."""


def scaled(anomaly_map: Map, scale: Sequence[float]) -> Map:
    """Map scores from `scale` (low, high) to [0, 1], clipped."""
    low, high = scale
    return np.asarray(np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1))


def heat(values: Map) -> Pixels:
    """Colour values in [0, 1] (H, W) as RGB (H, W, 3); colour-blind readers can order them."""
    return np.asarray(colormaps["inferno"](np.clip(values, 0, 1), bytes=True)[..., :3])


class Album:
    """Takes pictures into a page or a folder beside it until they reach a limit together."""

    def __init__(self, folder: Path, *, where: Where, max_megabytes: float) -> None:
        self.side = SIDES[where]
        self._is_embedded = where == "embedded"
        self._folder = folder / FOLDER
        self.max_megabytes, self._num_bytes_left = max_megabytes, to_bytes(max_megabytes)
        self._count = 0

    def take(self, *pictures: bytes | None) -> list[str | None] | None:
        """Return the pictures' addresses, None if they do not fit. A missing picture gives None."""
        larger = 4 / 3 if self._is_embedded else 1
        size = sum(int(larger * len(content)) + 40 for content in pictures if content)
        if size > self._num_bytes_left:
            return None
        self._num_bytes_left -= size
        return [self._put(content) if content else None for content in pictures]

    def _put(self, content: bytes) -> str:
        if self._is_embedded:
            return address(content)
        if not self._count:
            with files.full_disk_named(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                (self._folder / UNFINISHED).touch()
        name = f"{self._count:05}.{_kind(content)}"  # never a name from the data set
        self._count += 1
        with files.whole_file(self._folder / name, sync=False) as temporary:
            temporary.write_bytes(content)
        return f"{FOLDER}/{name}"

    def finish(self) -> None:
        """Say that the page of these pictures is written."""
        (self._folder / UNFINISHED).unlink(missing_ok=True)


def free_folder(folder: Path) -> None:
    """Remove the pictures of a report that was killed; refuse a folder of anything else.

    Raises:
        InputError: If the folder is not empty, and no killed report left it.
    """
    mark = folder / UNFINISHED
    if mark.is_file():
        for path in folder.iterdir():
            if path != mark:
                path.unlink()
        mark.unlink()
    elif folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"'{folder}' exists already. Choose another --out.")


def to_bytes(max_megabytes: float) -> float:
    """Return the limit of all pictures in bytes; refuse one that is not above 0."""
    if not max_megabytes > 0:
        raise InputError(f"--max_megabytes must be above 0, but got {max_megabytes:g}.")
    return max_megabytes * 1e6


def address(content: bytes) -> str:
    """Return a picture as an address that contains it."""
    return f"data:image/{_kind(content)};base64,{base64.b64encode(content).decode('ascii')}"


def _kind(content: bytes) -> str:
    return "png" if content.startswith(b"\x89PNG") else "jpeg"


def photograph(
    path: Path, side: int, kept_part: float, white_level: int, *, digest: str
) -> tuple[bytes | None, float]:
    """Return a thumbnail, and the width divided by the height.

    They are None and 1 if the file is unreadable or has another SHA-256: whoever wrote a
    results.json must not choose which of your files a page shows.
    """
    try:
        if not isfile(path) or files.digest(path) != digest:
            return None, 1.0
        image = Image.fromarray(load_image(path, white_level=white_level))
    except (InputError, OSError):
        return None, 1.0
    return thumbnail(image, side, kept_part), image.width / image.height


def thumbnail(image: Image.Image, side: int = SIDES["embedded"], kept_part: float = 1.0) -> bytes:
    """Return the centre of an image as a JPEG whose longer side has at most `side` pixels."""
    cut_x, cut_y = (round(s * (1 - kept_part) / 2) for s in image.size)
    image = image.crop((cut_x, cut_y, image.width - cut_x, image.height - cut_y))
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return encoded(image, quality=82)


def map_picture(level: Pixels) -> bytes:
    """Return a map (h, w) as a JPEG; 0 and 255 are the ends of the colour scale."""
    return encoded(Image.fromarray(heat(level / 255)), quality=88, subsampling=0)


def mask_picture(mask: NDArray[np.bool_]) -> bytes:
    """Return a mask (H, W) as a transparent PNG whose edges show on dark and on bright images."""
    white = Image.fromarray(mask.astype(np.uint8) * 255)
    bright, dark = (np.asarray(white.filter(ImageFilter.MaxFilter(size))) > 0 for size in (5, 7))
    indices = Image.fromarray(np.select([mask, bright, dark], [1, 2, 3], 0).astype(np.uint8), "P")
    indices.putpalette(np.array(_PALETTE, np.uint8).tobytes())
    return encoded(indices, "PNG", transparency=_OPACITY, optimize=True)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
