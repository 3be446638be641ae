"""What one image and its mask are, found by reading both whole."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from omiad.data.images import load_mask, read_image
from omiad.errors import InputError
from omiad.types import Sample

THUMBNAIL = 32
"""Side in pixels of the pictures that near duplicates are told by."""

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
    """What is known of one image.

    Attributes:
        row: Position of its sample.
        size: Width and height in pixels as seen, None where it cannot be read.
        special: What reading has to convert: grayscale, 16-bit, alpha, palette, CMYK, rotated.
        digest: Hash of the file's bytes, empty where it cannot be read.
        thumbnail: Gray picture (1024,), uint8, None where it cannot be read.
        error: Sentence of `read_image`, empty where it can be read.
        mask_error: Sentence of `read_mask`, empty where the mask can be read.
        mask_is_empty: Whether there is a mask that marks nothing.
    """

    row: int
    size: tuple[int, int] | None
    special: tuple[str, ...]
    digest: bytes
    thumbnail: NDArray[np.uint8] | None
    error: str
    mask_error: str
    mask_is_empty: bool


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
        size: tuple[int, int] | None = None
        special: tuple[str, ...] = ()
        thumbnail, error, digest = None, "", b""
        try:
            pixels = read_image(sample.image, THUMBNAIL).numpy()
            thumbnail = pixels.mean(0).round().astype(np.uint8).reshape(-1)
            size, special = _header(sample)
            digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16).digest()
        except InputError as problem:
            error = str(problem)
        mask_error, mask_is_empty = "", False
        if sample.mask is not None and not error:
            try:
                mask_is_empty = not load_mask(sample.mask, image=sample.image).any()
            except InputError as problem:
                mask_error = str(problem)
        return Facts(index, size, special, digest, thumbnail, error, mask_error, mask_is_empty)


def _header(sample: Sample) -> tuple[tuple[int, int], tuple[str, ...]]:
    with Image.open(sample.image) as image:
        size, mode = image.size, image.mode
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    special = _SPECIAL_MODES.get(mode) or ("16-bit" if mode.startswith("I") else None)
    found = [name for name in (special, "rotated by EXIF" if orientation != 1 else None) if name]
    return size[::-1] if orientation >= 5 else size, tuple(found)
