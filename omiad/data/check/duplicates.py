"""Images that occur twice in a data set."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.data.check.facts import Facts
from omiad.types import Sample

NEAR = 0.2
"""A test image is a near duplicate if its distance to the nearest training image is below this
share of the median distance between a training image of its category and its nearest neighbour."""

_MIN_TRAIN = 8  # with fewer training images the median distance is meaningless


class Pair(NamedTuple):
    """Rows of two samples with the same picture; if one is a training image, it is the first."""

    first: int
    second: int


def identical(samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Pair]:
    """Yield pairs of images whose files have the same bytes."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact.row)
    for rows in by_digest.values():
        first, *others = sorted(rows, key=lambda row: samples[row].split != "train")
        for other in others:
            yield Pair(first, other)


def near(samples: Sequence[Sample], facts: Sequence[Facts], known: set[Pair]) -> Iterator[Pair]:
    """Yield pairs of a test image and a training image of its category that look the same.

    The distance is Euclidean between gray pictures of 32 x 32 pixels. The limit follows from the
    training images of the category: the more similar they are, the lower it is.

    Args:
        samples: The samples.
        facts: The facts about the samples.
        known: Pairs of identical files, whose second images are left out.
    """
    seen = {pair.second for pair in known}
    groups: dict[tuple[str, str], list[Facts]] = defaultdict(list)
    for fact in facts:
        if fact.thumbnail is not None and fact.row not in seen:
            sample = samples[fact.row]
            groups[sample.category, sample.split].append(fact)
    for category in sorted({category for category, _ in groups}):
        train, test = groups[category, "train"], groups[category, "test"]
        if len(train) < _MIN_TRAIN or not test:
            continue
        pictures = _pictures(train)
        among_train = _distances(pictures, pictures)
        np.fill_diagonal(among_train, np.inf)
        usual = float(np.median(among_train.min(1)))
        to_train = _distances(_pictures(test), pictures)
        for i in np.flatnonzero(to_train.min(1) < NEAR * usual):
            yield Pair(train[int(to_train[i].argmin())].row, test[i].row)


def _pictures(facts: Sequence[Facts]) -> NDArray[np.float64]:
    return np.stack([fact.thumbnail for fact in facts if fact.thumbnail is not None]).astype(float)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(squared.clip(min=0)))
