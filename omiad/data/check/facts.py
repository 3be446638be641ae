"""Facts about images and masks, which are read in full, and pairs of images that are the same."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rich.progress import track
from torch.utils.data import DataLoader

from omiad.data.images import MaskSizeError, load_mask, read_image, upright_size
from omiad.errors import InputError, MissingInputError
from omiad.types import Sample

_NEAR = 0.2  # share of the usual distance between a training image and its nearest neighbour
_MIN_TRAIN = 8  # with fewer training images the median distance is meaningless
_THUMBNAIL = 32  # side in pixels of the pictures by which near duplicates are found

Pair = tuple[Sample, Sample]  # if one is a training image, it is the first
Conversion = tuple[str, str]  # what is special about an image, and how it is read

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
    """Facts about one image; an unreadable image has only a fault."""

    sample: Sample
    fault: str  # of the image or its mask, such as "mask size", or empty
    message: str  # a sentence about the fault, or empty
    size: tuple[int, int] | None = None  # width and height in pixels after EXIF rotation
    conversions: tuple[Conversion, ...] = ()
    digest: bytes = b""  # of the file
    thumbnail: NDArray[np.uint8] = np.empty(0, np.uint8)  # gray picture (1024,)


def gather(samples: Sequence[Sample], *, num_workers: int, progress: bool) -> list[Facts]:
    """Read all images and masks and return their facts, in the order of the samples."""
    loader: DataLoader[Facts] = DataLoader(
        samples,  # type: ignore[arg-type] # a list will do
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_facts,  # type: ignore[arg-type] # it gets a sample if there are no batches
    )
    return list(track(loader, "data check", disable=not progress))


def _facts(sample: Sample) -> Facts:
    try:
        pixels = read_image(sample.image, _THUMBNAIL).numpy()
    except MissingInputError:
        message = "The data set lists this image, but the file is missing."
        return Facts(sample, "missing image", message)
    except InputError as error:
        return Facts(sample, "unreadable image", str(error))
    with Image.open(sample.image) as image:
        size, mode = upright_size(image), image.mode.partition(";")[0]  # "I;16" is a kind of "I"
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    found = (_CONVERSIONS.get(mode), _TURNED if is_turned else None)
    conversions = tuple(conversion for conversion in found if conversion)
    digest = hashlib.blake2b(sample.image.read_bytes(), digest_size=16).digest()
    thumbnail = pixels.mean(0).round().astype(np.uint8).reshape(-1)
    return Facts(sample, *_mask_fault(sample), size, conversions, digest, thumbnail)


def _mask_fault(sample: Sample) -> tuple[str, str]:
    try:
        if sample.masks and not load_mask(sample.masks[0], image=sample.image).any():
            return "empty mask", "The mask of this defective image marks no pixel."
    except MaskSizeError as error:
        return "mask size", str(error)
    except InputError as error:
        return "unreadable mask", str(error)
    return "", ""


def identical(facts: Sequence[Facts]) -> Iterator[Pair]:
    """Yield pairs of images whose files have the same bytes."""
    by_digest: dict[bytes, list[Sample]] = defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact.sample)
    for samples in by_digest.values():
        first, *others = sorted(samples, key=lambda sample: sample.split != "train")
        yield from ((first, other) for other in others)


def near(facts: Sequence[Facts], known: Collection[Pair]) -> Iterator[Pair]:
    """Yield pairs of a training image and a test image of its category that look the same.

    The distance is Euclidean between gray pictures of 32 x 32 pixels. The limit follows from the
    training images of the category: the more similar they are, the lower it is. The second images
    of `known` pairs are left out.
    """
    seen = {second for _, second in known}
    groups: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for fact in facts:
        if fact.thumbnail.size and fact.sample not in seen:
            groups[fact.sample.category, fact.sample.split].append(fact)
    for category in sorted({category for category, _ in groups}):
        train, test = groups[category, "train"], groups[category, "test"]
        if len(train) < _MIN_TRAIN or not test:
            continue
        trained, tested = (
            torch.from_numpy(np.stack([fact.thumbnail for fact in group])).double()
            for group in (train, test)
        )
        among_train = torch.cdist(trained, trained).fill_diagonal_(torch.inf)
        limit = _NEAR * among_train.amin(1).quantile(0.5)
        distances, nearest = torch.cdist(tested, trained).min(1)
        for i in torch.nonzero(distances < limit).flatten().tolist():
            yield train[int(nearest[i])].sample, test[i].sample
