"""Images that are in a data set twice."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.data.check.facts import Facts
from omiad.types import Sample

NEAR = 0.2
"""A test image is a near duplicate if it is closer to a training image than this share of the
distance that training images of its category usually keep to their nearest neighbour."""

_MIN_TRAIN = 8  # with fewer the usual distance says nothing


class Pair(NamedTuple):
    """Two samples with the same picture, a training image first where one is."""

    first: int
    second: int


def identical(samples: Sequence[Sample], facts: Sequence[Facts]) -> Iterator[Pair]:
    """Yield pairs of images whose files hold the same bytes."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for fact in facts:
        if fact.digest:
            by_digest[fact.digest].append(fact.row)
    for indices in by_digest.values():
        first, *others = sorted(indices, key=lambda i: samples[i].split != "train")
        for other in others:
            yield Pair(first, other)


def near(samples: Sequence[Sample], facts: Sequence[Facts], known: set[Pair]) -> Iterator[Pair]:
    """Yield test images that show what a training image of their category shows.

    Pictures of 32 x 32 gray pixels are compared by their Euclidean distance; how close is too
    close depends on how alike the training images of the category are.

    Args:
        samples: The samples.
        facts: Their facts.
        known: Byte-identical pairs, which are not yielded again.
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
        for row in np.flatnonzero(to_train.min(1) < NEAR * usual):
            yield Pair(train[int(to_train[row].argmin())].row, test[row].row)


def _pictures(facts: Sequence[Facts]) -> NDArray[np.float64]:
    return np.stack([fact.thumbnail for fact in facts if fact.thumbnail is not None]).astype(float)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.asarray(np.sqrt(squared.clip(min=0)))
