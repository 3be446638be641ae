"""Photographs that a person has sorted into folders.

A category is a folder of one of these kinds. The root is one category or contains several.

    bolt/*.png                                       only normal images
    bolt/good/*.png  bolt/scratch/*.png              normal images, and a folder for each defect
    bolt/good  bolt/good_test  bolt/scratch          the same, with normal images for the test
    bolt/train/good  bolt/test/{good,scratch}        as in MVTec AD; train/*.png also works

The folder of normal images is called good, normal or ok, in upper or lower case. Masks are
optional. They lie in `ground_truth`, `gt`, `masks` or `mask` of the category, with or without a
folder for each defect; `masks` says how they are named.
"""

from pathlib import Path

from omiad.data.layouts.listing import (
    checksum,
    folders,
    images,
    is_for_masks,
    is_normal,
    listed,
    name_of,
    named,
    normal_folders,
)
from omiad.data.layouts.masks import masks_of
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

HELD_OUT = 5  # of so many normal images, one is tested if there are only defective test images


def index(root: Path, *, for_test: bool = False) -> list[Sample]:
    """List the images by category, training before test, normal before defective, and file name.

    If a category has defects but no normal test images, the fifth of its normal images whose file
    names have the lowest CRC-32 becomes test images, so that detection can be measured. With
    `for_test` training images may be missing, and all images of a category without a split are
    test images.
    """
    inner = [path for path in folders(root) if is_category(path) and not is_for_masks(path.name)]
    products = [path for path in inner if not is_normal(path.name)]
    if products and images(root) and not normal_folders(root):
        raise InputError(
            f"'{root}' contains photographs and folders of photographs ({listed(products)}). "
            f"If they show one product, move the photographs to '{root / NORMAL}'. Otherwise move "
            f"each to the folder of its product."
        )
    categories = [root] if is_category(root) else inner
    if not categories:
        raise InputError(
            f"No photographs in '{root}'. Put normal photographs of each product in "
            f"<category>/good/ and defective ones, if you have any, in <category>/<defect>/."
        )
    return [s for category in categories for s in _category(category, for_test=for_test)]


def is_category(folder: Path) -> bool:
    """Return whether a folder has images, a folder of normal images, or a split."""
    return is_split(folder) or bool(normal_folders(folder) or images(folder))


def is_split(folder: Path) -> bool:
    """Return whether a category has a training or a test split."""
    return bool(named(folder, "train", "test"))


def _category(category: Path, *, for_test: bool) -> list[Sample]:
    name, (train, test) = name_of(category), _normal(category)
    tested = [each for place in _tested(category) for each in folders(place)]
    defects = [folder for folder in tested if _is_defect(folder.name)]
    masks = masks_of(category, defects)
    defective = [(image, folder.name) for folder in defects for image in images(folder)]
    if for_test:
        if not (test or is_split(category)):
            train, test = [], train
    elif not train:
        raise InputError(
            f"'{category}' has no normal images to train on. Put them in "
            f"'{category / ('train/good' if is_split(category) else NORMAL)}'."
        )
    elif defective and not test:
        test = sorted(sorted(train, key=checksum)[: len(train) // HELD_OUT])
        train = sorted(set(train) - set(test))
    return [
        *(Sample(path, (), name, NORMAL, "train") for path in train),
        *(Sample(path, (), name, NORMAL, "test") for path in test),
        *(Sample(path, masks.get(path, ()), name, defect, "test") for path, defect in defective),
    ]


def _normal(category: Path) -> tuple[list[Path], list[Path]]:
    """Return the normal training images and the normal test images of a category."""
    if not is_split(category):
        train = normal_folders(category, "", "train") or [category]
        return images(*train), images(*normal_folders(category, "test"))
    train = [g for place in named(category, "train") for g in normal_folders(place) or [place]]
    return images(*train), images(
        *(g for place in _tested(category) for g in normal_folders(place))
    )


def _tested(category: Path) -> list[Path]:
    """Return the folders whose folders are tested."""
    return named(category, "test") or [category]


def _is_defect(name: str) -> bool:
    return not (is_normal(name) or is_for_masks(name) or name.lower() in ("train", "test"))
