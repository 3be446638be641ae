"""Photographs sorted into folders by hand.

A category is a folder of one of these kinds; the root is one category, or holds some:

    bolt/*.png                                       normal images alone
    bolt/good/*.png  bolt/scratch/*.png              normal images, and a folder for each defect
    bolt/train/good  bolt/test/{good,scratch}        as in MVTec AD; also images right in train/

Normal folders are called good, normal or ok, in any case. Masks are optional: `ground_truth`,
`masks` or `mask` in the category, with or without a folder for each defect, named like the image
or with `_mask` behind.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

from omiad.data.layouts.listing import check_root, folders, images, masks
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

NORMAL_NAMES = ("good", "normal", "ok")
MASK_NAMES = ("ground_truth", "masks", "mask")

HELD_OUT = 5
"""One of so many normal images is tested where there are defects but no normal test images."""


def index(root: Path) -> list[Sample]:
    """List the images: by category, train before test, normal before defective, by file name.

    Where a category has defects but no normal test images, the fifth of its normal images whose
    names have the lowest CRC-32 goes to the test split, so that detection can be measured.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is no category, or one without normal images, or photographs lie both
            in the root and in categories.
    """
    check_root(root)
    inner = [f.name for f in folders(root) if is_category(f) and f.name not in MASK_NAMES]
    if images(root) and inner and not _normal_folder(root):
        raise InputError(
            f"'{root}' holds photographs itself and in folders ({', '.join(inner[:4])}). If it is "
            f"one product, move them to '{root / NORMAL}'; otherwise into their category's folder."
        )
    categories = [root] if is_category(root) else [f for f in folders(root) if is_category(f)]
    if not categories:
        raise InputError(
            f"No photographs in '{root}'. Put the normal ones of each product in "
            f"<category>/good/, and defective ones, if any, in <category>/<defect>/."
        )
    return [sample for category in categories for sample in _category(category)]


def is_category(folder: Path) -> bool:
    """Whether a folder holds images, a folder of normal images, or a training split."""
    return bool((folder / "train").is_dir() or _normal_folder(folder) or images(folder))


def _category(category: Path) -> list[Sample]:
    name = category.resolve().name
    train = category / "train"
    tested = category / "test" if train.is_dir() else category
    source = train if train.is_dir() else category
    normal = images(_normal_folder(source) or source)
    if not normal:
        raise InputError(
            f"'{category}' has no normal images to train on. Put them in '{source / NORMAL}'."
        )
    normal_test: list[Path] = []
    defective: list[Sample] = []
    skipped = {"train", "test", *MASK_NAMES}
    for folder in folders(tested) if tested.is_dir() else []:
        if folder.name.lower() in NORMAL_NAMES:
            normal_test += images(folder) if tested != source else []
        elif folder.name.lower() not in skipped:
            defective += _defective(category, folder)
    if defective and not normal_test:
        by_checksum = sorted(normal, key=lambda path: (zlib.crc32(path.name.encode()), path.name))
        normal_test = sorted(by_checksum[: len(normal) // HELD_OUT])
        normal = sorted(set(normal) - set(normal_test))
    return [
        *(Sample(path, None, name, NORMAL, "train") for path in normal),
        *(Sample(path, None, name, NORMAL, "test") for path in normal_test),
        *defective,
    ]


def _defective(category: Path, folder: Path) -> Iterator[Sample]:
    mask: dict[str, Path] = {}
    for place in MASK_NAMES:
        mask |= masks(category / place) | masks(category / place / folder.name)
    for path in images(folder):
        name = category.resolve().name
        yield Sample(path, mask.get(path.stem), name, folder.name, "test")


def _normal_folder(folder: Path) -> Path | None:
    for inner in folders(folder) if folder.is_dir() else []:
        if inner.name.lower() in NORMAL_NAMES:
            return inner
    return None
