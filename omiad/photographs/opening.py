"""The one door through which image files come in: Pillow opens them, in five formats only."""

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from omiad.errors import InputError
from omiad.files import check_regular
from omiad.names import one_line

FORMATS = {
    "BMP": (".bmp",),
    "JPEG": (".jpeg", ".jpg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""Formats of image files by Pillow's names, with their suffixes; the content decides, not the name.

Pillow knows many more, and opens each by its content: for PostScript it starts Ghostscript.
"""

# In lower case; upper case is accepted too.
IMAGE_SUFFIXES = frozenset(chain.from_iterable(FORMATS.values()))

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""

STDERR = 2
_DESCRIPTORS = threading.Lock()  # of two threads, one would restore what the other one put there

_TWO_BYTES = re.compile(r";16[BLN]")
"""What Pillow calls 16-bit samples in the file; `BGR;16` of BMP is 16 bits for a whole pixel."""


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; whatever Pillow raises in the block becomes an InputError with the path.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the file is not a regular file, has none of `FORMATS`, is damaged, or has
            more than 179 million pixels (Pillow's limit against decompression bombs).
    """
    check_regular(path)
    with decoding(f"'{path}'"), Image.open(path, formats=tuple(FORMATS)) as image:
        check_whole(image)
        yield image


@contextmanager
def opened_content(content: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """Open the content of an image file as `opened` opens a file, under a name for messages.

    Raises:
        InputError: As for `opened`.
    """
    with decoding(name), Image.open(io.BytesIO(content), formats=tuple(FORMATS)) as image:
        check_whole(image)
        yield image


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises in the block into an InputError with a name.

    Pillow's warnings are about metadata, on which no pixel depends, and are ignored.

    Raises:
        InputError: If Pillow raises anything.
    """
    try:
        with _SILENCE:
            yield
    except InputError:
        raise
    except Exception as error:  # a decoder raises almost anything for a damaged file
        raise InputError(
            f"{name} cannot be read as an image ({_reason(error)}). Replace the file or remove it."
        ) from error


def load(image: Image.Image) -> None:
    """Decode an opened image; libtiff's own lines about a damaged file do not reach the terminal.

    libtiff writes to file descriptor 2. The error that Pillow raises is the message that counts.
    """
    if image.format != "TIFF" or sys.stderr is None:
        image.load()
        return
    with _DESCRIPTORS, open(os.devnull, "wb") as nothing:
        before = os.dup(STDERR)
        os.dup2(nothing.fileno(), STDERR)
        try:
            image.load()
        finally:
            os.dup2(before, STDERR)
            os.close(before)


class _Silence:
    """Ignore warnings inside `with` blocks of any number of threads.

    `warnings.catch_warnings` alone restores filters out of order if two threads overlap, and
    would silence the process for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if not self._depth:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if not self._depth:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


def upright(image: Image.Image) -> Image.Image:
    """Decode an opened image and turn it upright, as its EXIF orientation says."""
    load(image)
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an opened image after its EXIF rotation."""
    # Pillow itself turns TIFF, and gives the size after it.
    is_turned = image.format != "TIFF" and orientation(image) >= 5
    return image.size[::-1] if is_turned else image.size


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image; 1, upright, if the entry is damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # other viewers ignore damaged metadata too
        return 1
    return int(value) if value in _TURNS.keys() | {1} else 1


def check_whole(image: Image.Image) -> None:
    """Refuse an image with missing strips or tiles, which Pillow would show as black.

    Check before the image is decoded; afterwards nothing tells.

    Raises:
        ValueError: If a part is missing.
    """
    boxes = [tile[1] or (0, 0, *image.size) for tile in getattr(image, "tile", [])]
    stored = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if boxes and stored < image.width * image.height:
        raise ValueError("a part of the image is not stored")


def has_wide_colour(image: Image.Image) -> bool:
    """Return whether an opened image has 16-bit colour, of which Pillow keeps the high bytes.

    Ask before the image is decoded; afterwards nothing tells.
    """
    stored = " ".join(str(tile[3]) for tile in getattr(image, "tile", [])[:1])
    return not image.mode.startswith("I") and bool(_TWO_BYTES.search(stored))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is damaged, or none of {', '.join(FORMATS)}"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(words) or type(error).__name__
