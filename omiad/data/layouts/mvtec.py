"""The layout of MVTec AD, which MPDD, prepared VisA and many other data sets share.

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

Test images and masks are optional. A mask may also have the name of its image.
"""

from collections.abc import Iterator
from pathlib import Path

from omiad.data.images import IMAGE_SUFFIXES
from omiad.data.layouts.listing import check_root, folders, images, masks
from omiad.errors import InputError
from omiad.types import NORMAL, Sample


def index(root: Path, *, test_only: bool = False) -> list[Sample]:
    """List the images by category, training before test, defect, and file name.

    Hidden entries and files that are not images are ignored, as is `ground_truth/good`.

    Args:
        root: Folder of the categories.
        test_only: List only test images; there may be none.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is no category, or a category has no training images.
    """
    check_root(root)
    if (root / "train").is_dir():
        raise InputError(
            f"'{root}' is a single category because it contains 'train'. Give its parent folder, "
            f"or use --data.layout folder for this category alone."
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
    """Return whether a folder contains `train`, `test` or `ground_truth`."""
    return any((folder / part).is_dir() for part in ("train", "test", "ground_truth"))


def _train(category: Path) -> list[Sample]:
    folder = category / "train" / NORMAL
    if not folder.is_dir():
        raise InputError(
            f"'{category}' has no train/good. Put the normal training images of the category "
            f"there, or move the category out of the data set."
        )
    samples = [Sample(image, None, category.name, NORMAL, "train") for image in images(folder)]
    if not samples:
        raise InputError(
            f"'{folder}' has no images. Put the normal training images of the category there "
            f"({', '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return samples


def _test(category: Path) -> Iterator[Sample]:
    folder = category / "test"
    for defect in folders(folder) if folder.is_dir() else []:
        mask = {} if defect.name == NORMAL else masks(category / "ground_truth" / defect.name)
        for image in images(defect):
            yield Sample(image, mask.get(image.stem), category.name, defect.name, "test")
