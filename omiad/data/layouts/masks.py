"""Which masks belong to which image.

The masks of `000.png` are called `000_mask`, and `000_mask_1`, `000_mask_2` and so on if there are
several, which are united. Where there is none of these, `000` is its mask. A mask may also be
named after the whole name of the image: `000.png_mask.png`, or `000.png.png`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from omiad.data.layouts.listing import folders, images, is_for_masks, named
from omiad.errors import InputError
from omiad.names import one_line

Masks = dict[Path, tuple[Path, ...]]
"""The masks of each image that has any."""

_NAMED = re.compile(r"(.+)_mask(?:[_-]?\d+)?", re.IGNORECASE | re.DOTALL)


def masks_of(category: Path, defects: Sequence[Path]) -> Masks:
    """Find the masks of the images in the folders of defects.

    Masks lie in folders of the category for masks, with or without a folder for each defect.

    Raises:
        InputError: If a mask may belong to two images.
    """
    places, found = [path for path in folders(category) if is_for_masks(path.name)], Masks()
    for defect in defects:
        own = [folder for place in places for folder in named(place, defect.name)]
        found |= assign(images(defect), images(*own))
    shared, tested = images(*places), images(*defects) if places else []
    return found | assign([image for image in tested if image not in found], shared)


def assign(images: Iterable[Path], masks: Iterable[Path]) -> Masks:
    """Give each image its masks.

    Raises:
        InputError: If a mask may belong to two images.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    by_name: dict[str, list[Path]] = defaultdict(list)
    for image in images:
        by_stem[image.stem].append(image)
        by_name[image.name].append(image)
    marked: dict[str, list[Path]] = defaultdict(list)
    plain: dict[str, list[Path]] = defaultdict(list)
    for mask in masks:
        match = _NAMED.fullmatch(mask.stem)
        if match and (match[1] in by_stem or match[1] in by_name):
            marked[match[1]].append(mask)
        else:
            plain[mask.stem].append(mask)
    found = Masks()
    for names in (by_name, by_stem):  # a mask that names the suffix too is sure to be meant
        for name, group in names.items():
            owners = [image for image in group if image not in found]
            if owners and (own := marked.get(name) or plain.get(name)):
                found |= _shared_out(owners, own, is_marked=name in marked)
    return found


def _shared_out(owners: list[Path], masks: list[Path], *, is_marked: bool) -> Masks:
    """Give the masks of one name to the only image of that name, or to those of equal suffix."""
    if len(owners) == 1:
        return {owners[0]: tuple(masks)}
    if not is_marked and sorted(p.name for p in owners) == sorted(p.name for p in masks):
        by_name = {mask.name: mask for mask in masks}
        return {image: (by_name[image.name],) for image in owners}
    first, second, mask = (one_line(str(path)) for path in (*owners[:2], masks[0]))
    raise InputError(
        f"The mask '{mask}' may belong to '{first}' or to '{second}'. Rename one of the images, "
        f"and its mask alike."
    )
