"""The layout of MVTec AD, which MPDD, prepared VisA and many other data sets share.

    <root>/<category>/train/good/000.png
    <root>/<category>/test/good/000.png
    <root>/<category>/test/<defect>/000.png
    <root>/<category>/ground_truth/<defect>/000_mask.png

Test images and masks are optional. A mask may also have the name of its image.
"""

from pathlib import Path

from omiad.data.layouts.listing import folders, images, masks
from omiad.data.opening import IMAGE_SUFFIXES
from omiad.errors import InputError
from omiad.types import NORMAL, Sample


def index(root: Path, *, test_only: bool = False) -> list[Sample]:
    """List the images by category, training before test, defect, and file name.

    Hidden entries and files that are not images are ignored, as is `ground_truth/good`. With
    `test_only` the training images are neither needed nor listed.
    """
    if (root / "train").is_dir():
        raise InputError(
            f"'{root}' is a single category because it contains 'train'. Give its parent folder, "
            f"or use --data.layout folder for this category alone."
        )
    categories = [folder for folder in folders(root) if is_category(folder)]
    if not categories and not test_only:
        raise InputError(
            f"No category in '{root}'. Expected <category>/train/good/ with images; "
            f"`omiad data synthesize` writes an example."
        )
    samples: list[Sample] = []
    for category in categories:
        normal = [] if test_only else images(category / "train" / NORMAL)
        if not normal and not test_only:
            raise InputError(
                f"'{category}' has no images in train/good. Put its normal training images there "
                f"({', '.join(sorted(IMAGE_SUFFIXES))}), or move the category out of the data set."
            )
        samples += [Sample(image, (), category.name, NORMAL, "train") for image in normal]
        for defect in folders(category / "test"):
            mask = {} if defect.name == NORMAL else masks(category / "ground_truth" / defect.name)
            samples += [
                Sample(image, mask.get(image.stem, ()), category.name, defect.name, "test")
                for image in images(defect)
            ]
    return samples


def is_category(folder: Path) -> bool:
    """Return whether a folder contains `train`, `test` or `ground_truth`."""
    return any((folder / part).is_dir() for part in ("train", "test", "ground_truth"))
