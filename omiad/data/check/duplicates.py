"""Images that occur twice in a data set."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from omiad.data.check.facts import Facts
from omiad.types import Sample

NEAR = 0.2
"""A test image is a near duplicate if its distance to the nearest training image is below this
share of the median distance between a training image of its category and its nearest neighbour."""

_MIN_TRAIN = 8  # with fewer training images the median distance is meaningless

Pair = tuple[Sample, Sample]
"""Two samples with the same picture; if one is a training image, it is the first."""


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
        pictures = _pictures(train)
        among_train = torch.cdist(pictures, pictures).fill_diagonal_(torch.inf)
        limit = NEAR * among_train.amin(1).quantile(0.5)
        distances, nearest = torch.cdist(_pictures(test), pictures).min(1)
        for i in torch.nonzero(distances < limit).flatten().tolist():
            yield train[int(nearest[i])].sample, test[i].sample


def _pictures(facts: Sequence[Facts]) -> Tensor:
    return torch.from_numpy(np.stack([fact.thumbnail for fact in facts])).double()
