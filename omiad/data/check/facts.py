"""Facts about images and masks, which are read in full, and pairs of images that are the same."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader

from omiad.data.masks import MaskSizeError, open_mask, unite
from omiad.errors import InputError, MissingInputError
from omiad.features.identity import content_of
from omiad.photographs import read_image
from omiad.photographs.opening import (
    has_wide_colour,
    load,
    opened,
    orientation,
    upright_size,
)
from omiad.progress import track
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


class Broken(NamedTuple):
    """A file that cannot be used."""

    kind: str  # such as "mask size"
    path: Path
    message: str  # a sentence


class MaskFacts(NamedTuple):
    """How a mask file was drawn; see `omiad.data.masks.Mask`."""

    path: Path
    num_levels: int
    is_lossy: bool
    is_soft: bool


class Facts(NamedTuple):
    """Facts about one image and its masks; an unreadable image has only `broken`."""

    sample: Sample
    broken: tuple[Broken, ...]
    size: tuple[int, int] | None = None  # width and height in pixels after EXIF rotation
    conversions: tuple[Conversion, ...] = ()
    peak: int | None = None  # highest value of 16 bits; None for 8 bits
    is_wide_colour: bool = False  # 16 bits, and in colour
    digest: str = ""  # of the file
    thumbnail: NDArray[np.uint8] = np.empty(0, np.uint8)  # gray picture (1024,)
    masks: tuple[MaskFacts, ...] = ()
    marked: float = 0.0  # part of the image that all masks mark


def gather(samples: Sequence[Sample], *, num_workers: int, progress: bool) -> list[Facts]:
    """Read all images and masks and return their facts, in the order of the samples."""
    loader: DataLoader[Facts] = DataLoader(
        samples,  # type: ignore[arg-type] # a list will do
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_facts,  # type: ignore[arg-type] # it gets a sample if there are no batches
    )
    return list(track(loader, "data check", total=len(loader), disable=not progress))


def _facts(sample: Sample) -> Facts:
    try:
        pixels = read_image(sample.image, _THUMBNAIL).numpy()
        with opened(sample.image) as image:
            is_wide_colour, mode = has_wide_colour(image), image.mode.partition(";")[0]  # "I;16"
            size, is_turned = upright_size(image), orientation(image) != 1
            peak = None
            if is_wide_colour:  # only the high byte is known
                peak = _brightest(image) * 256 + 255
            elif mode == "I":
                peak = _brightest(image)
        digest = content_of(sample.image)
    except MissingInputError:
        message = "The data set lists this image, but the file is missing."
        return Facts(sample, (Broken("missing image", sample.image, message),))
    except InputError as error:
        return Facts(sample, (Broken("unreadable image", sample.image, str(error)),))
    found = (_CONVERSIONS.get(mode), _TURNED if is_turned else None)
    conversions = tuple(conversion for conversion in found if conversion)
    thumbnail = pixels.mean(0).round().astype(np.uint8).reshape(-1)
    broken, masks, marked = _of_masks(sample)
    return Facts(
        sample,
        tuple(broken),
        size,
        conversions,
        peak,
        is_wide_colour,
        digest,
        thumbnail,
        tuple(masks),
        marked,
    )


def _brightest(image: Image.Image) -> int:
    load(image)  # numpy would hide an error of the decoder
    return int(np.asarray(image).max())


def _of_masks(sample: Sample) -> tuple[list[Broken], list[MaskFacts], float]:
    """Return what is wrong with the masks of a sample, how they were drawn, and what they mark."""
    broken: list[Broken] = []
    facts: list[MaskFacts] = []
    united: NDArray[np.bool_] = np.zeros((), np.bool_)
    for path in sample.masks:
        try:
            mask = open_mask(path)
            united = united | unite({path: mask.defective}, image=sample.image)
            facts.append(MaskFacts(path, mask.num_levels, mask.is_lossy, mask.is_soft))
        except MaskSizeError as error:  # noqa: PERF203 (the other masks are looked at too)
            broken.append(Broken("mask size", path, str(error)))
        except InputError as error:
            broken.append(Broken("unreadable mask", path, str(error)))
    if sample.masks and not broken and not united.any():
        message = "The mask of this defective image marks no pixel."
        broken.append(Broken("empty mask", sample.masks[0], message))
    return broken, facts, float(united.mean())


def identical(facts: Sequence[Facts]) -> Iterator[Pair]:
    """Yield pairs of images whose files have the same bytes."""
    by_digest: dict[str, list[Sample]] = defaultdict(list)
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
