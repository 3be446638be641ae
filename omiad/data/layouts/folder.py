"""Photographs that a person has sorted into folders.

A category is a folder of one of these kinds. The root is one category or contains several.

    bolt/*.png                                       only normal images
    bolt/good/*.png  bolt/scratch/*.png              normal images, and a folder for each defect
    bolt/train/good  bolt/test/{good,scratch}        as in MVTec AD; train/*.png also works

The folder of normal images is called good, normal or ok, in upper or lower case. Masks are
optional. They lie in `ground_truth`, `masks` or `mask` of the category, with or without a folder
for each defect, and have the name of the image, with or without `_mask` at its end.
"""

import zlib
from pathlib import Path

from omiad.data.layouts.listing import folders, images, masks
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

NORMAL_NAMES = ("good", "normal", "ok")
MASK_NAMES = ("ground_truth", "masks", "mask")
HELD_OUT = 5  # of so many normal images, one is tested if there are only defective test images


def index(root: Path) -> list[Sample]:
    """List the images by category, training before test, normal before defective, and file name.

    If a category has defects but no normal test images, the fifth of its normal images whose file
    names have the lowest CRC-32 becomes test images, so that detection can be measured.
    """
    inner = [folder for folder in folders(root) if is_category(folder)]
    named = [folder.name for folder in inner if folder.name not in MASK_NAMES]
    if images(root) and named and not _normal_folder(root):
        raise InputError(
            f"'{root}' contains photographs and folders of photographs ({', '.join(named[:4])}). "
            f"If they show one product, move the photographs to '{root / NORMAL}'. Otherwise move "
            f"each to the folder of its product."
        )
    categories = [root] if is_category(root) else inner
    if not categories:
        raise InputError(
            f"No photographs in '{root}'. Put normal photographs of each product in "
            f"<category>/good/ and defective ones, if you have any, in <category>/<defect>/."
        )
    return [sample for category in categories for sample in _category(category)]


def is_category(folder: Path) -> bool:
    """Return whether a folder has images, a folder of normal images, or a training split."""
    return bool((folder / "train").is_dir() or _normal_folder(folder) or images(folder))


def _category(category: Path) -> list[Sample]:
    name = category.resolve().name
    split = (category / "train").is_dir()
    source, tested = (category / "train", category / "test") if split else (category, category)
    normal = images(_normal_folder(source) or source)
    if not normal:
        raise InputError(
            f"'{category}' has no normal images to train on. Put them in '{source / NORMAL}'."
        )
    normal_test: list[Path] = []
    defective: list[Sample] = []
    for folder in folders(tested):
        if folder.name.lower() in NORMAL_NAMES:
            normal_test += images(folder) if split else []
        elif folder.name.lower() not in {"train", "test", *MASK_NAMES}:
            mask: dict[str, tuple[Path, ...]] = {}
            for place in MASK_NAMES:
                mask |= masks(category / place) | masks(category / place / folder.name)
            defective += [
                Sample(path, mask.get(path.stem, ()), name, folder.name, "test")
                for path in images(folder)
            ]
    if defective and not normal_test:
        by_checksum = sorted(normal, key=lambda path: (zlib.crc32(path.name.encode()), path.name))
        normal_test = sorted(by_checksum[: len(normal) // HELD_OUT])
        normal = sorted(set(normal) - set(normal_test))
    return [
        *(Sample(path, (), name, NORMAL, "train") for path in normal),
        *(Sample(path, (), name, NORMAL, "test") for path in normal_test),
        *defective,
    ]


def _normal_folder(folder: Path) -> Path | None:
    return next((path for path in folders(folder) if path.name.lower() in NORMAL_NAMES), None)
