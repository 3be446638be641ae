"""Layouts of data sets: each module lists the images below a folder without opening them."""

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from omiad.data.layouts import folder, mvtec, realiad, visa
from omiad.data.layouts.admission import admit
from omiad.data.layouts.listing import folders, listed, normal_folders
from omiad.data.layouts.published import count, recognise
from omiad.errors import InputError, MissingInputError
from omiad.types import Sample

Layout = Literal["auto", "mvtec", "visa", "mpdd", "realiad", "realiad_sv", "folder", "synthetic"]

INDEXES: dict[str, Callable[..., list[Sample]]] = {
    "mvtec": mvtec.index,
    "visa": visa.index,
    "mpdd": mvtec.index,
    "realiad": realiad.index,
    "realiad_sv": partial(realiad.index, jsons="realiad_jsons_sv"),
    "folder": folder.index,
    "synthetic": mvtec.index,
}
"""The index function of each layout. MPDD and the synthetic data set use that of MVTec AD."""

FEW_PHOTOGRAPHS = 10  # training photographs of a category; fewer give a warning


class Index(NamedTuple):
    """The contents of a data set."""

    layout: str
    dataset: str  # name of the published data set, or otherwise of the folder
    samples: list[Sample]

    def summary(self) -> str:
        """Return the name, the layout and the numbers of images in one line."""
        counts = count(self.samples)
        train = sum(c.train for c in counts.values())
        return (
            f"{self.dataset}, {self.layout} layout, {len(counts)} categories, {train} training and "
            f"{len(self.samples) - train} test images"
        )


def index_dataset(root: Path, layout: Layout = "auto", *, for_test: bool = False) -> Index:
    """List the images of a data set; with "auto" the layout is detected from the folders.

    With `for_test` training images may be missing, and sorted photographs without a split are all
    test images.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If no layout fits, the data set is incomplete, or `admit` refuses a sample.
    """
    if not root.is_dir():
        raise MissingInputError(
            f"No folder '{root}'. Set --data.root to the folder that contains the categories."
        )
    name = _detect(root) if layout == "auto" else layout
    samples = INDEXES[name](root, for_test=for_test)
    admit(samples, root, for_test=for_test)
    if name in ("visa", "realiad", "realiad_sv"):
        return Index(name, name, samples)
    known = recognise({sample.category for sample in samples})
    return Index(name, known or root.resolve().name, samples)


def few_photographs(samples: Collection[Sample]) -> dict[str, int]:
    """Return the number of training photographs of each category with fewer than 10 of them."""
    counts = count(samples).items()
    return {name: c.train for name, c in counts if c.train < FEW_PHOTOGRAPHS}


def _detect(root: Path) -> str:
    if visa.matches(root):
        return "visa"
    if realiad.matches(root):
        return "realiad"
    inner = folders(root)
    split = [path for path in inner if mvtec.is_category(path)]
    if split and (normal := normal_folders(root)):
        raise InputError(
            f"'{root}' contains normal images ({listed(normal)}) and whole products "
            f"({listed(split)}). Move the images to the folder of their product."
        )
    if split:  # sorted photographs may lie beside a product with a split
        return "folder" if any(map(mvtec.is_unsplit, inner)) else "mvtec"
    if any(folder.is_category(category) for category in (root, *inner)):
        return "folder"
    found = ", ".join(path.name for path in inner[:4]) or "no folders"
    raise InputError(
        f"No layout fits '{root}' (found: {found}). Expected <category>/train/good/ (MVTec AD, "
        f"MPDD), split_csv/1cls.csv (VisA), realiad_jsons/ (Real-IAD), or <category>/good/ with "
        f"your own photographs; see README, 'Your own photographs'. Change --data.root."
    )
