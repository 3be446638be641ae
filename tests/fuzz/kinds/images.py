"""Photographs and masks in every format, with mutated bytes, and files that are no image."""

import io
import os
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from png import chunk, png_16_bit, with_right_sums
from world import World, scores_in

from fuzz.cases import CANARY, INPUT, OUTPUT, Case, command
from fuzz.mutations import Rng, damaged, pick
from omiad.data.images import load_mask, read_image

SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp", ".jpeg", ".tiff", ".PNG")
FORMATS = {
    "PNG": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("1", "L", "RGB", "RGBA", "P"),
    "TIFF": ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F", "I", "LAB", "YCbCr", "P"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("L", "RGB", "P"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "ICO": ("RGB", "RGBA"),
    "TGA": ("L", "RGB", "RGBA"),
    "PCX": ("L", "RGB"),
    "DDS": ("RGB", "RGBA"),
    "EPS": ("L", "RGB"),
    "PDF": ("L", "RGB"),
    "JPEG2000": ("L", "RGB"),
    "SGI": ("L", "RGB"),
    "MSP": ("1",),
    "IM": ("L", "RGB"),
    "SPIDER": ("F",),
}
"""Modes in which each of Pillow's formats is written; the name of the file says something else."""

POSTSCRIPT = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 32 32
%%EndComments
(CANARY) (w) file closefile
(%pipe%touch CANARY) (w) file closefile
showpage
%%EOF
"""
SVG = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'


def encoded(rng: Rng, *, size: int | None = None) -> bytes:
    """Return a picture of a random format, mode and size, perhaps with an EXIF block."""
    name = pick(rng, [*FORMATS][:5] if rng.random() < 0.7 else [*FORMATS])
    mode = pick(rng, FORMATS[name])
    width, height = (size, size) if size else rng.integers(1, 48, 2).tolist()
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    if rng.random() < 0.02:  # which Pillow reads, but does not write
        return png_16_bit(pixels[:1, :1].astype(np.uint16), interlaced=True)
    if mode.startswith("I"):
        wide = rng.integers(0, 65536, (height, width))
        picture = Image.fromarray(wide.astype(np.uint16 if mode == "I;16" else np.int32))
    else:
        picture = Image.fromarray(pixels).convert(mode)
    options: dict[str, Any] = {}
    if name in ("JPEG", "PNG", "TIFF", "WEBP") and rng.random() < 0.3:
        options["exif"] = _exif(rng)
    if name == "TIFF":
        options["compression"] = pick(rng, (None, "tiff_lzw", "tiff_deflate", "packbits"))
        if "exif" in options:  # libtiff, which compresses, prints lines about strange fields
            options["compression"] = None
    if name in ("GIF", "TIFF", "PNG", "WEBP") and rng.random() < 0.2:
        options |= {"save_all": True, "append_images": [picture.copy()]}
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.save(buffer, name, **options)
    except Exception:  # this Pillow does not write it
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mutant(rng: Rng, *, size: int | None = None) -> bytes:
    """Return a picture with damaged bytes.

    Half of the PNGs get right checksums, so that the damage comes further.
    """
    content = encoded(rng, size=size)
    for _ in range(int(rng.integers(1, 4))):
        content = damaged(content, rng)
    return with_right_sums(content) if rng.random() < 0.5 else content


def _exif(rng: Rng) -> Any:
    exif = Image.Exif()
    orientation = pick(rng, (0, 1, 3, 6, 8, 9, 255, 65535, "6", b"\x06", (1, 2), -1))
    if isinstance(orientation, int) and 0 <= orientation < 65536:
        exif[ExifTags.Base.Orientation] = orientation
        return exif.tobytes()
    value = pick(rng, (0, 2, 5, 7, 9, 12, 13, 200))  # another type of field, with strange content
    count = pick(rng, (0, 1, 2**31, 2**32 - 1))
    entry = struct.pack("<HHII", 0x0112, value, count, pick(rng, (6, 0, 2**32 - 1)))
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"


def _postscript(path: Path, folder: Path) -> None:
    path.write_text(POSTSCRIPT.replace("CANARY", str(folder / CANARY)))


def _xml(path: Path, folder: Path) -> None:
    path.write_text(SVG)


def _fifo(path: Path, folder: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path, folder: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path, folder: Path) -> None:
    path.symlink_to("nothing.png")


def _endless(path: Path, folder: Path) -> None:
    path.symlink_to("/dev/zero")


def _directory(path: Path, folder: Path) -> None:
    path.mkdir()


def _parents(path: Path, folder: Path) -> None:
    path.symlink_to("..")


def _empty(path: Path, folder: Path) -> None:
    path.touch()


def _bomb(path: Path, folder: Path) -> None:
    """Write a PNG that claims 60,000 x 60,000 pixels."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _text_bomb(path: Path, folder: Path) -> None:
    """Write a PNG whose compressed text unpacks to 100 MB."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    text = b"a\0\0" + zlib.compress(bytes(10**8), 9)
    rows = zlib.compress(bytes(9 * 8))
    body = chunk(b"IHDR", head) + chunk(b"zTXt", text) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _pgm(path: Path, folder: Path) -> None:
    path.write_bytes(b"P5 99999999 99999999 255\n" + bytes(100))


SPECIALS: tuple[Callable[[Path, Path], None], ...] = (
    *(_postscript, _xml, _fifo, _loop, _dangling, _endless, _directory, _parents, _empty),
    *(_bomb, _text_bomb, _pgm),
)
"""Files that are no image although their name says so: each writes one at a path."""


def images(world: World, rng: Rng, folder: Path) -> Case:
    """Read one attacked photograph, alone or among good ones."""
    inside = folder / INPUT / "photographs"
    inside.mkdir()
    path = inside / f"attack{pick(rng, SUFFIXES)}"
    _attack(path, rng, folder)
    door = pick(rng, (*("reader",) * 7, "predict", "check"))
    if door == "reader":
        return Case(call=lambda: _shape(read_image(path, 32), (3, 32, 32)), seconds=10)
    if door == "check":
        return _check_data(world, folder, photograph=path)
    for photograph in world.photographs.iterdir():
        shutil.copy(photograph, inside / photograph.name)
    words = f"predict {world.student} {INPUT}/photographs --device cpu"
    return Case(
        command(f"{words} --output {OUTPUT}/p"),
        check=lambda: _others(world, folder / OUTPUT / "p"),
        checks_refusals=True,
    )


def masks(world: World, rng: Rng, folder: Path) -> Case:
    """Read one attacked mask."""
    path = folder / INPUT / f"attack{pick(rng, SUFFIXES)}"
    _attack(path, rng, folder, size=32)
    photograph = sorted(world.data.glob("bottle/test/hole/*.png"))[0]
    if rng.random() < 0.9:
        return Case(call=lambda: _shape(load_mask((path,), image=photograph), (32, 32)), seconds=10)
    return _check_data(world, folder, mask=path)


def _attack(path: Path, rng: Rng, folder: Path, *, size: int | None = None) -> None:
    way = rng.random()
    if way < 0.08:
        pick(rng, SPECIALS)(path, folder)
        return
    path.write_bytes(encoded(rng, size=size) if way < 0.2 else mutant(rng, size=size))


def _check_data(
    world: World, folder: Path, *, photograph: Path | None = None, mask: Path | None = None
) -> Case:
    """Return a check of a data set in which one file is the attack."""
    root = folder / INPUT / "data"
    shutil.copytree(world.data / "bottle", root / "bottle")
    if photograph is not None:
        target, source = root / "bottle/test/hole" / photograph.name, photograph
    else:
        assert mask is not None
        (root / "bottle/ground_truth/hole/000_mask.png").unlink()
        target, source = root / f"bottle/ground_truth/hole/000_mask{mask.suffix}", mask
    source.rename(target)
    return Case(command(f"data check --data.root {INPUT}/data"), statuses=(0, 1, 2))


def _shape(array: Any, expected: tuple[int, ...]) -> None:
    if tuple(array.shape) != expected:
        raise AssertionError(f"shape {tuple(array.shape)} instead of {expected}")


def _others(world: World, predictions: Path) -> str | None:
    found, right = scores_in(predictions), world.scores["omiad"]
    lost = [name for name, score in right.items() if found.get(name) != score]
    return f"photograph '{lost[0]}' lost or changed" if lost else None
