"""The layout of MVTec AD, which MPDD, prepared VisA and many other data sets share.

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

Test images and masks are optional; a mask may also be called like its image.
"""

from collections.abc import Iterator
from pathlib import Path

from omiad.data.images import IMAGE_SUFFIXES
from omiad.data.layouts.listing import check_root, folders, images, masks
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

PARTS = ("train", "test", "ground_truth")
"""Folders that make their parent a category."""


def index(root: Path, *, test_only: bool = False) -> list[Sample]:
    """List the images of a data set: by category, train before test, by defect, by file name.

    A sub-folder of the root with a `train`, `test` or `ground_truth` folder is a category. Hidden
    entries and files that are not images are ignored, as is `ground_truth/good`.

    Args:
        root: Folder of the categories.
        test_only: Leave the training images out; there need not be any image then.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is no category, or one without training images.
    """
    check_root(root)
    if (root / "train").is_dir():
        raise InputError(
            f"'{root}' is a category itself, for it holds 'train'. Give its parent folder instead, "
            f"or --data.layout folder to use this category alone."
        )
    samples = [
        sample
        for category in folders(root)
        if is_category(category)
        for sample in (*(() if test_only else _train(category)), *_test(category))
    ]
    if not samples and not test_only:
        raise InputError(
            f"No category in '{root}'. Expected <category>/train/good/ with images; "
            f"`omiad data synthesize` writes an example."
        )
    return samples


def is_category(folder: Path) -> bool:
    """Whether a folder is a category of this layout."""
    return any((folder / part).is_dir() for part in PARTS)


def _train(category: Path) -> list[Sample]:
    folder = category / "train" / NORMAL
    if not folder.is_dir():
        raise InputError(
            f"'{category}' is a category without train/good. Put its normal training images "
            f"there, or move the folder out of the data set."
        )
    samples = [
        Sample(image=image, mask=None, category=category.name, defect=NORMAL, split="train")
        for image in images(folder)
    ]
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
    for defect in folders(folder):
        mask = {} if defect.name == NORMAL else masks(category / "ground_truth" / defect.name)
        for image in images(defect):
            yield Sample(
                image=image,
                mask=mask.get(image.stem),
                category=category.name,
                defect=defect.name,
                split="test",
            )
