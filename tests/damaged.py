"""Image files of every format, and what a disk, a network or an attacker may make of them."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

Change = Callable[[bytearray, np.random.Generator], bytes]

_LIES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 30_000, 2**24)


def originals(rng: np.random.Generator) -> list[bytes]:
    """Return small images in all formats and kinds that Pillow writes, read here or not."""
    colour = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (24, 20), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    files = [
        *(_file(colour.convert(mode), "PNG", exif=exif) for mode in ("1", "L", "LA", "P", "RGBA")),
        _file(colour, "PNG", exif=exif, dpi=(72, 72), icc_profile=b"x" * 200),
        _file(colour.convert("P"), "PNG", transparency=bytes(range(200))),
        _file(wide, "PNG"),
        *(_file(colour.convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")),
        _file(colour, "JPEG", progressive=True, optimize=True, comment="text"),
        _file(colour, "MPO", save_all=True, append_images=[colour]),
        *(_file(colour.convert(mode), "BMP") for mode in ("1", "L", "P", "RGB", "RGBA")),
        _file(colour, "WEBP", exif=exif),
        _file(colour.convert("RGBA"), "WEBP", lossless=True),
        _file(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
        _file(wide, "TIFF", compression="tiff_lzw"),
        _file(wide.convert("F"), "TIFF"),
        _file(colour, "TIFF", exif=exif, save_all=True, append_images=[colour]),
        *(_file(colour.convert(mode), "TIFF") for mode in ("1", "P", "LAB", "CMYK", "YCbCr", "LA")),
        *(
            _file(colour, "TIFF", compression=how)
            for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        _file(colour.convert("1"), "TIFF", compression="group4"),
        *(
            _file(colour.convert("RGB"), kind)
            for kind in ("GIF", "PPM", "EPS", "ICO", "TGA", "PCX")
        ),
    ]
    return [*files, _interlaced_16_bit(rng)]


def mutants(rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Yield damaged image files; the same generator gives the same files."""
    files = originals(rng)
    for _ in range(count):
        content = bytearray(files[rng.integers(len(files))])
        for _ in range(rng.integers(1, 4)):
            content = bytearray(CHANGES[rng.integers(len(CHANGES))](content, rng)) or bytearray(1)
        # Half of the PNGs get right checksums, so that the damage comes further.
        yield _with_right_sums(bytes(content)) if rng.random() < 0.5 else bytes(content)


def _truncated(content: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(content[: rng.integers(len(content))])


def _flipped(content: bytearray, rng: np.random.Generator) -> bytes:
    for place in rng.integers(len(content), size=rng.integers(1, 9)):
        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


def _lying(content: bytearray, rng: np.random.Generator) -> bytes:
    """Write an extreme number into the first 200 bytes, in either order of bytes."""
    number, order = _LIES[rng.integers(len(_LIES))], "<>"[rng.integers(2)]
    packed = struct.pack(f"{order}{'HI'[number > 0xFFFF]}", number)
    place = int(rng.integers(min(200, len(content))))
    content[place : place + len(packed)] = packed
    return bytes(content)


def _cut_out(content: bytearray, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(len(content), size=2))
    del content[start : min(stop, start + 64)]
    return bytes(content)


def _doubled(content: bytearray, rng: np.random.Generator) -> bytes:
    start, place = rng.integers(len(content), size=2)
    content[place:place] = content[start : start + rng.integers(1, 64)]
    return bytes(content)


def _overwritten(content: bytearray, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(content)))
    size = int(rng.integers(1, 32))
    content[start : start + size] = rng.bytes(size)
    return bytes(content)


CHANGES: tuple[Change, ...] = (_truncated, _flipped, _lying, _cut_out, _doubled, _overwritten)


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG file (RFC 2083, section 3.2)."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png_16_bit(pixels: np.ndarray, *, interlaced: bool = False) -> bytes:
    """Return a PNG of 16-bit colour (H, W, 3), uint16, which Pillow reads but does not write."""
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, int(interlaced))
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _interlaced_16_bit(rng: np.random.Generator) -> bytes:
    return png_16_bit(rng.integers(0, 65536, (1, 1, 3), dtype=np.uint16), interlaced=True)


def _with_right_sums(content: bytes) -> bytes:
    """Return a PNG whose checksums fit its chunks; any other content as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    mended, place = content[:8], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        if place + 12 + size > len(content):
            break
        kind = content[place + 4 : place + 8]
        mended += chunk(kind, content[place + 8 : place + 8 + size])
        place += 12 + size
    return mended + content[place:]
