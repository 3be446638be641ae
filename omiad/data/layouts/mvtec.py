"""The layout of MVTec AD, which MPDD, prepared VisA and many other data sets share.

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

Test images and masks are optional; `listing` and `masks` have the other names that folders and
masks may have.
"""

from pathlib import Path

from omiad.data.layouts.listing import (
    folders,
    images,
    is_for_masks,
    is_normal,
    listed,
    named,
    normal_folders,
)
from omiad.data.layouts.masks import masks_of
from omiad.errors import InputError
from omiad.photographs import IMAGE_SUFFIXES
from omiad.types import NORMAL, Sample


def index(root: Path, *, for_test: bool = False) -> list[Sample]:
    """List the images by category, training before test, defect, and file name.

    Hidden entries and files that are not images are ignored, as is `ground_truth/good`. With
    `for_test` training images may be missing.
    """
    if named(root, "train"):
        raise InputError(
            f"'{root}' is a single category because it contains 'train'. Give its parent folder, "
            f"or use --data.layout folder for this category alone."
        )
    categories = [folder for folder in folders(root) if is_category(folder)]
    if not categories and not for_test:
        raise InputError(
            f"No category in '{root}'. Expected <category>/train/good/ with images; "
            f"`omiad data synthesize` writes an example."
        )
    if unsplit := [path for path in folders(root) if path not in categories and is_unsplit(path)]:
        raise InputError(
            f"{listed(unsplit)} in '{root}' have normal images but no 'train', unlike "
            f"{listed(categories)}. Move the normal images to train/good, or use --data.layout "
            f"folder."
        )
    return [s for category in categories for s in _category(category, for_test=for_test)]


def is_category(folder: Path) -> bool:
    """Return whether a folder contains `train`, `test` or `ground_truth`."""
    return bool(named(folder, "train", "test", "ground_truth"))


def is_unsplit(folder: Path) -> bool:
    """Return whether a folder has a folder of normal images, but no training or test split."""
    return not is_category(folder) and bool(images(*normal_folders(folder)))


def _category(category: Path, *, for_test: bool) -> list[Sample]:
    name = category.name
    source = [each for train in named(category, "train") for each in normal_folders(train)]
    if not (for_test or images(*source)):
        raise InputError(
            f"'{category}' has no images in train/good. Put its normal training images there "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}), or move the category out of the data set."
        )
    samples = [Sample(image, (), name, NORMAL, "train") for image in images(*source)]
    tested = [folder for test in named(category, "test") for folder in folders(test)]
    tested = [folder for folder in tested if not is_for_masks(folder.name)]
    masks = masks_of(category, [folder for folder in tested if not is_normal(folder.name)])
    for folder in tested:
        defect = NORMAL if is_normal(folder.name) else folder.name
        samples += [
            Sample(image, masks.get(image, ()), name, defect, "test") for image in images(folder)
        ]
    return samples
