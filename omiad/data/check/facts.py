"""Facts about one image and its mask, found by reading both in full."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rich.progress import track
from torch.utils.data import DataLoader

from omiad.data.images import MaskSizeError, load_mask, read_image, upright_size
from omiad.errors import InputError, MissingInputError
from omiad.types import Sample

THUMBNAIL = 32
"""Side in pixels of the pictures by which near duplicates are found."""

Conversion = tuple[str, str]
"""What is special about an image, and how it is read."""

_CONVERSIONS: dict[str, Conversion] = {
    "1": ("black and white", "repeated to three channels"),
    "L": ("grayscale", "repeated to three channels"),
    "LA": ("alpha", "read without transparency"),
    "PA": ("alpha", "read without transparency"),
    "RGBA": ("alpha", "read without transparency"),
    "P": ("palette", "read as the colours of the palette"),
    "CMYK": ("CMYK", "converted to RGB"),
    "I": ("16-bit", "scaled from 0..65535 to 0..255"),
}
_TURNED = ("rotated by EXIF", "turned upright")


class Facts(NamedTuple):
    """Facts about one image; an unreadable image has only a fault.

    Attributes:
        sample: The image.
        fault: What is wrong with the image or its mask, such as "mask size", or empty.
        message: A sentence about the fault, or empty.
        size: Width and height in pixels after EXIF rotation.
        conversions: What reading converts.
        digest: Hash of the bytes of the file.
        thumbnail: Gray picture (1024,), uint8.
    """

    sample: Sample
    fault: str
    message: str
    size: tuple[int, int] | None = None
    conversions: tuple[Conversion, ...] = ()
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] = np.empty(0, np.uint8)


def gather(samples: Sequence[Sample], *, num_workers: int, progress: bool) -> list[Facts]:
    """Read all images and masks and return their facts, in the order of the samples."""
    loader: DataLoader[list[Facts]] = DataLoader(
        samples,  # type: ignore[arg-type] # a list will do
        batch_size=8,
        num_workers=num_workers,
        collate_fn=_read,
    )
    batches = track(loader, "data check", disable=not progress)
    return [fact for batch in batches for fact in batch]


def _read(samples: Sequence[Sample]) -> list[Facts]:
    return [_facts(sample) for sample in samples]


def _facts(sample: Sample) -> Facts:
    try:
        pixels = read_image(sample.image, THUMBNAIL).numpy()
    except MissingInputError:
        message = "The data set lists this image, but the file is missing."
        return Facts(sample, "missing image", message)
    except InputError as error:
        return Facts(sample, "unreadable image", str(error))
    with Image.open(sample.image) as image:
        size, mode = upright_size(image), image.mode.partition(";")[0]  # "I;16" is a kind of "I"
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    conversions = (*([_CONVERSIONS[mode]] if mode in _CONVERSIONS else []), *[_TURNED] * is_turned)
    digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16).digest()
    thumbnail = pixels.mean(0).round().astype(np.uint8).reshape(-1)
    return Facts(sample, *_mask_fault(sample), size, conversions, digest, thumbnail)


def _mask_fault(sample: Sample) -> tuple[str, str]:
    try:
        if sample.mask and not load_mask(sample.mask, image=sample.image).any():
            return "empty mask", "The mask of this defective image marks no pixel."
    except MaskSizeError as error:
        return "mask size", str(error)
    except InputError as error:
        return "unreadable mask", str(error)
    return "", ""
