"""Facts about one image and its mask, found by reading both in full."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from omiad.data.images import MaskSizeError, load_mask, read_image
from omiad.errors import InputError
from omiad.types import Sample

THUMBNAIL = 32
"""Side in pixels of the pictures by which near duplicates are found."""

_SPECIAL_MODES = {
    "1": "black and white",
    "L": "grayscale",
    "LA": "alpha",
    "PA": "alpha",
    "RGBA": "alpha",
    "P": "palette",
    "CMYK": "CMYK",
}


class Facts(NamedTuple):
    """Facts about one image; those of an unreadable image are empty, except `row` and `error`.

    Attributes:
        row: Position of the sample in the list.
        size: Width and height in pixels after EXIF rotation.
        special: Conversions that reading applies, such as "grayscale", "alpha" or "16-bit".
        digest: Hash of the bytes of the file.
        thumbnail: Gray picture (1024,), uint8.
        error: Message of `read_image`, or empty.
        mask_fault: "mask size", "unreadable mask" or "empty mask", or empty.
        mask_error: Sentence about the fault of the mask, or empty.
    """

    row: int
    size: tuple[int, int] | None = None
    special: tuple[str, ...] = ()
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    error: str = ""
    mask_fault: str = ""
    mask_error: str = ""


def gather(samples: Sequence[Sample], *, num_workers: int, progress: bool) -> list[Facts]:
    """Read all images and masks and return their facts, in the order of the samples."""
    loader: DataLoader[Facts] = DataLoader(
        _Facts(samples), batch_size=8, num_workers=num_workers, collate_fn=list
    )
    batches = track(loader, "data check", disable=not progress)
    return [fact for batch in batches for fact in batch]


class _Facts(Dataset[Facts]):
    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Facts:
        sample = self.samples[index]
        try:
            pixels = read_image(sample.image, THUMBNAIL).numpy()
            size, special = _header(sample)
            digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16).digest()
        except InputError as error:
            return Facts(index, error=str(error))
        thumbnail = pixels.mean(0).round().astype(np.uint8).reshape(-1)
        return Facts(index, size, special, digest, thumbnail, "", *_mask_fault(sample))


def _header(sample: Sample) -> tuple[tuple[int, int], tuple[str, ...]]:
    with Image.open(sample.image) as image:
        size, mode = image.size, image.mode
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    special = _SPECIAL_MODES.get(mode) or ("16-bit" if mode.startswith("I") else None)
    found = [name for name in (special, "rotated by EXIF" if orientation != 1 else None) if name]
    return size[::-1] if orientation >= 5 else size, tuple(found)


def _mask_fault(sample: Sample) -> tuple[str, str]:
    if sample.mask is None:
        return "", ""
    try:
        if load_mask(sample.mask, image=sample.image).any():
            return "", ""
    except MaskSizeError as error:
        return "mask size", str(error)
    except InputError as error:
        return "unreadable mask", str(error)
    return "empty mask", "The mask of this defective image marks no pixel."
