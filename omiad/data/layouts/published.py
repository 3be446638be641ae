"""Numbers of images in the published data sets.

Sources: MVTec AD, Bergmann et al. 2019, table 1. VisA, the official 1cls.csv of spot-diff. MPDD,
Jezek et al. 2021, which states only the total of the training images. Real-IAD, Wang et al. 2024,
which states only the totals of the multi-view split.
"""

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from omiad.types import Sample


class Counts(NamedTuple):
    """Numbers of normal training, normal test and defective test images; -1 is not published."""

    train: int = -1
    good: int = -1
    defective: int = -1


class Published(NamedTuple):
    """A published data set: its name in the literature and its numbers of images."""

    title: str
    categories: dict[str, Counts]
    total: Counts


def _table(text: str) -> dict[str, Counts]:
    """Parse the name of each category and its numbers of images, if they are published."""
    rows = (row.split() for row in text.split(","))
    return {name: Counts(*map(int, numbers)) for name, *numbers in rows}


_MVTEC = """
    bottle 209 20 63, cable 224 58 92, capsule 219 23 109, carpet 280 28 89, grid 264 21 57,
    hazelnut 391 40 70, leather 245 32 92, metal_nut 220 22 93, pill 267 26 141, screw 320 41 119,
    tile 230 33 84, toothbrush 60 12 30, transistor 213 60 40, wood 247 19 60, zipper 240 32 119
"""
_VISA = """
    candle 900 100 100, capsules 542 60 100, cashew 450 50 100, chewinggum 453 50 100,
    fryum 450 50 100, macaroni1 900 100 100, macaroni2 900 100 100, pcb1 904 100 100,
    pcb2 901 100 100, pcb3 905 101 100, pcb4 904 101 100, pipe_fryum 450 50 100
"""
_MPDD = """
    bracket_black -1 32 47, bracket_brown -1 26 51, bracket_white -1 30 30,
    connector -1 30 14, metal_plate -1 26 71, tubes -1 32 69
"""
_REALIAD = """
    audiojack, bottle_cap, button_battery, end_cap, eraser, fire_hood, mint, mounts, pcb,
    phone_battery, plastic_nut, plastic_plug, porcelain_doll, regulator, rolled_strip_base,
    sim_card_set, switch, tape, terminalblock, toothbrush, toy, toy_brick, transistor1, u_block,
    usb, usb_adaptor, vcpill, wooden_beads, woodstick, zipper
"""

PUBLISHED: dict[str, Published] = {
    "mvtec": Published("MVTec AD", _table(_MVTEC), Counts(3629, 467, 1258)),
    "visa": Published("VisA", _table(_VISA), Counts(8659, 962, 1200)),
    "mpdd": Published("MPDD", _table(_MPDD), Counts(888, 176, 282)),
    "realiad": Published("Real-IAD", _table(_REALIAD), Counts(36465, 63256, 51329)),
}
"""The published data sets by the names of their layouts."""


def count(samples: Collection[Sample]) -> dict[str, Counts]:
    """Count the images of each category, sorted by name."""
    kinds = Counter((s.category, s.split, s.is_anomalous) for s in samples)
    return {
        name: Counts(
            kinds[name, "train", False], kinds[name, "test", False], kinds[name, "test", True]
        )
        for name in sorted({name for name, *_ in kinds})
    }


def recognise(categories: Collection[str]) -> str | None:
    """Return the published data set with at least half of its categories here and no others."""
    for name, published in PUBLISHED.items():
        known = published.categories
        if set(categories) <= set(known) and 2 * len(categories) >= len(known):
            return name
    return None
