"""Numbers of images in the published data sets, from `published.csv`; an empty cell is unknown.

Sources: MVTec AD, Bergmann et al. 2019, table 1. VisA, the official 1cls.csv of spot-diff. MPDD,
Jezek et al. 2021, which states only the total of the training images. Real-IAD, Wang et al. 2024,
which states only the totals of the multi-view split.
"""

import csv
from collections import defaultdict
from collections.abc import Collection
from importlib.resources import files
from typing import NamedTuple

from omiad.types import Sample

ALL = "all categories"
_TITLES = {"mvtec": "MVTec AD", "visa": "VisA", "mpdd": "MPDD", "realiad": "Real-IAD"}


class Counts(NamedTuple):
    """Numbers of normal training, normal test and defective test images; -1 is unknown."""

    train: int
    good: int
    defective: int


class Published(NamedTuple):
    """A published data set: its name in the literature and its numbers of images."""

    title: str
    categories: dict[str, Counts]
    total: Counts


def _read(name: str) -> Published:
    rows = csv.reader(files(__package__).joinpath("published.csv").read_text().splitlines())
    found = {row[1]: Counts(*(int(n or -1) for n in row[2:])) for row in rows if row[0] == name}
    return Published(_TITLES[name], total=found.pop(ALL), categories=found)


PUBLISHED = {name: _read(name) for name in _TITLES}  # by the names of their layouts


def count(samples: Collection[Sample]) -> dict[str, Counts]:
    """Count the images of each category, sorted by name."""
    numbers: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for sample in samples:
        numbers[sample.category][0 if sample.split == "train" else 1 + sample.is_anomalous] += 1
    return {name: Counts(*numbers[name]) for name in sorted(numbers)}


def recognise(categories: Collection[str]) -> str | None:
    """Return the published data set with at least half of its categories here and no others."""
    for name, published in PUBLISHED.items():
        known = published.categories
        if set(categories) <= set(known) and 2 * len(categories) >= len(known):
            return name
    return None
