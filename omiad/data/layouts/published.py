"""How many images the published data sets have.

MVTec AD: Bergmann et al. 2019, table 1. VisA: the official 1cls.csv of spot-diff. MPDD: Jezek et
al. 2021; of its training images only the total is printed. Real-IAD: Wang et al. 2024; only totals
of the multi-view split are printed.
"""

from collections.abc import Collection
from typing import NamedTuple


class Counts(NamedTuple):
    """Numbers of images.

    Attributes:
        train: Normal training images.
        good: Normal test images.
        defective: Defective test images.
    """

    train: int
    good: int
    defective: int


class Published(NamedTuple):
    """A published data set.

    Attributes:
        title: Its name in print.
        categories: Names of its categories, with their counts where they are printed; a negative
            number is not printed.
        total: The counts of the whole.
    """

    title: str
    categories: dict[str, Counts | None]
    total: Counts


_MVTEC = {
    "bottle": Counts(209, 20, 63),
    "cable": Counts(224, 58, 92),
    "capsule": Counts(219, 23, 109),
    "carpet": Counts(280, 28, 89),
    "grid": Counts(264, 21, 57),
    "hazelnut": Counts(391, 40, 70),
    "leather": Counts(245, 32, 92),
    "metal_nut": Counts(220, 22, 93),
    "pill": Counts(267, 26, 141),
    "screw": Counts(320, 41, 119),
    "tile": Counts(230, 33, 84),
    "toothbrush": Counts(60, 12, 30),
    "transistor": Counts(213, 60, 40),
    "wood": Counts(247, 19, 60),
    "zipper": Counts(240, 32, 119),
}

_VISA = {
    "candle": Counts(900, 100, 100),
    "capsules": Counts(542, 60, 100),
    "cashew": Counts(450, 50, 100),
    "chewinggum": Counts(453, 50, 100),
    "fryum": Counts(450, 50, 100),
    "macaroni1": Counts(900, 100, 100),
    "macaroni2": Counts(900, 100, 100),
    "pcb1": Counts(904, 100, 100),
    "pcb2": Counts(901, 100, 100),
    "pcb3": Counts(905, 101, 100),
    "pcb4": Counts(904, 101, 100),
    "pipe_fryum": Counts(450, 50, 100),
}

_MPDD = {
    "bracket_black": Counts(-1, 32, 47),
    "bracket_brown": Counts(-1, 26, 51),
    "bracket_white": Counts(-1, 30, 30),
    "connector": Counts(-1, 30, 14),
    "metal_plate": Counts(-1, 26, 71),
    "tubes": Counts(-1, 32, 69),
}

_REALIAD = """
    audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery
    plastic_nut plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape
    terminalblock toothbrush toy toy_brick transistor1 u_block usb usb_adaptor vcpill wooden_beads
    woodstick zipper
"""

PUBLISHED: dict[str, Published] = {
    "mvtec": Published("MVTec AD", {**_MVTEC}, Counts(3629, 467, 1258)),
    "visa": Published("VisA", {**_VISA}, Counts(8659, 962, 1200)),
    "mpdd": Published("MPDD", {**_MPDD}, Counts(888, 176, 282)),
    "realiad": Published("Real-IAD", dict.fromkeys(_REALIAD.split()), Counts(36465, 63256, 51329)),
}
"""The data sets by the names of their layouts."""


def recognise(categories: Collection[str]) -> str | None:
    """Name the published data set whose categories these are: no others, and at least half."""
    for name, published in PUBLISHED.items():
        known = published.categories
        if set(categories) <= set(known) and 2 * len(categories) >= len(known):
            return name
    return None
