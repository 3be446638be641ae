"""The layout of MVTec AD, which many data sets share.

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

Test images and masks are optional; a mask may also be called like its image.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from omiad.data.images import IMAGE_SUFFIXES
from omiad.errors import InputError, MissingInputError
from omiad.types import NORMAL, Sample

_PARTS = ("train", "test", "ground_truth")


def index(root: Path, *, test_only: bool = False) -> list[Sample]:
    """List the images of a data set: by category, train before test, by defect, by file name.

    A sub-folder of the root with a `train`, `test` or `ground_truth` folder is a category. Hidden
    entries and files that are not images are ignored, as is `ground_truth/good`.

    Args:
        root: Folder of the categories.
        test_only: Leave the training images out; there need not be any.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is no category, or one without training images.
    """
    if not root.is_dir():
        raise MissingInputError(
            f"No folder '{root}'. Give --data.root the folder that holds one folder per category."
        )
    if (root / "train").is_dir():
        raise InputError(
            f"'{root}' is a category itself, for it holds 'train'. Give its parent folder instead."
        )
    samples: list[Sample] = []
    for category in _folders(root):
        if any((category / part).is_dir() for part in _PARTS):
            samples += [] if test_only else _train(category)
            samples += _test(category)
    if not samples:
        raise InputError(
            f"No category in '{root}'. Expected <category>/train/good/ with images; "
            f"`omiad synthesize` writes an example."
        )
    return samples


def _train(category: Path) -> list[Sample]:
    folder = category / "train" / NORMAL
    if not folder.is_dir():
        raise InputError(
            f"'{category}' is a category without train/good. Put its normal training images "
            f"there, or move the folder out of the data set."
        )
    samples = [_sample(image, category, NORMAL, "train", None) for image in _images(folder)]
    if not samples:
        raise InputError(
            f"'{folder}' holds no images. Put the category's normal training images there "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return samples


def _test(category: Path) -> Iterator[Sample]:
    folder = category / "test"
    if not folder.is_dir():
        return
    for defect in _folders(folder):
        masks = {} if defect.name == NORMAL else _masks(category / "ground_truth" / defect.name)
        for image in _images(defect):
            yield _sample(image, category, defect.name, "test", masks.get(image.stem))


def _masks(folder: Path) -> dict[str, Path]:
    """Map the stem of an image to its mask; `000_mask` goes before `000`."""
    if not folder.is_dir():
        return {}
    masks = {path.stem: path for path in _images(folder)}
    named = {stem.removesuffix("_mask"): path for stem, path in masks.items() if "_mask" in stem}
    return masks | named


def _sample(
    image: Path, category: Path, defect: str, split: Literal["train", "test"], mask: Path | None
) -> Sample:
    return Sample(image=image, mask=mask, category=category.name, defect=defect, split=split)


def _folders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder, folders=True)]


def _images(folder: Path) -> list[Path]:
    names = _names(folder, folders=False)
    return [folder / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def _names(folder: Path, *, folders: bool) -> list[str]:
    # The kind of an entry comes with the listing: no further call to the file system per file.
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir() == folders
        )
