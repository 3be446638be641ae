"""Layouts of data sets: each module turns a folder into a list of samples, opening no pixels."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from omiad.data.layouts import folder, mvtec, realiad, visa
from omiad.data.layouts.listing import check_root, folders
from omiad.data.layouts.published import recognise
from omiad.errors import InputError
from omiad.types import Sample

Layout = Literal["auto", "mvtec", "visa", "mpdd", "realiad", "realiad_sv", "folder", "synthetic"]

INDEXES: dict[str, Callable[[Path], list[Sample]]] = {
    "mvtec": mvtec.index,
    "visa": visa.index,
    "mpdd": mvtec.index,
    "realiad": realiad.index,
    "realiad_sv": partial(realiad.index, jsons="realiad_jsons_sv"),
    "folder": folder.index,
    "synthetic": mvtec.index,
}
"""The index function of each layout; MPDD and the synthetic data set lie as MVTec AD does."""


class Index(NamedTuple):
    """What a folder holds.

    Attributes:
        layout: Name of the layout it was read in.
        dataset: Name of the published data set where it is one, otherwise of the folder.
        samples: The images.
    """

    layout: str
    dataset: str
    samples: list[Sample]


def index_dataset(root: Path, layout: Layout = "auto", *, test_only: bool = False) -> Index:
    """List the images of a data set in a layout, by default the one its folders suggest.

    Args:
        root: Folder of the data set.
        layout: Name of its layout.
        test_only: Leave the training images out, which then need not be there.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If no layout fits, or the data set is incomplete.
    """
    name = detect(root) if layout == "auto" else layout
    index = INDEXES[name]
    if test_only and index is mvtec.index:  # the others know the test split by itself
        samples = mvtec.index(root, test_only=True)
    else:
        samples = [s for s in index(root) if s.split == "test" or not test_only]
    if name in ("visa", "realiad", "realiad_sv"):
        return Index(name, name, samples)
    known = recognise({sample.category for sample in samples})
    return Index(name, known or root.resolve().name, samples)


def describe(index: Index) -> str:
    """Say in a line what was found: name, layout, and numbers of images."""
    train = sum(sample.split == "train" for sample in index.samples)
    categories = len({sample.category for sample in index.samples})
    return (
        f"{index.dataset}, {index.layout} layout, {categories} categories, {train} training and "
        f"{len(index.samples) - train} test images"
    )


def detect(root: Path) -> str:
    """Name the layout of a folder by its sub-folders.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If it looks like none.
    """
    check_root(root)
    if visa.matches(root):
        return "visa"
    if realiad.matches(root):
        return "realiad"
    inner = folders(root)
    if any(mvtec.is_category(category) for category in inner):
        return "mvtec"
    if folder.is_category(root) or any(folder.is_category(category) for category in inner):
        return "folder"
    found = ", ".join(path.name for path in inner[:4]) or "no folders"
    raise InputError(
        f"No layout fits '{root}' (it holds {found}). Expected <category>/train/good/ (MVTec AD, "
        f"MPDD), split_csv/1cls.csv (VisA), realiad_jsons/ (Real-IAD), or <category>/good/ with "
        f"your own photographs; see README, 'Your own photographs'. Give --data.root one of these."
    )
