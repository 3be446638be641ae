"""The layout of Real-IAD: five views of each part, split and labelled by JSON files.

    Real-IAD/realiad_{256,512,1024}/<category>/OK/S0001/<category>_0001_OK_C1_<time>.jpg
    Real-IAD/realiad_{256,512,1024}/<category>/NG/<defect>/S0001/..._C1_<time>.{jpg,png}
    Real-IAD/realiad_jsons/<category>.json                  or realiad_jsons/realiad_jsons/

The root is `Real-IAD`, or the folder of one resolution if there are several. The layout
`realiad_sv` reads the single-view splits from `realiad_jsons_sv`, in either place. A root with
`<category>.json` next to each `<category>/` also works. Paths and labels come from the JSON: a view
that shows no defect has the label OK although its file is under NG.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

from omiad.data.layouts.listing import folders, is_normal
from omiad.data.layouts.splits import read_split
from omiad.errors import InputError
from omiad.names import one_line
from omiad.types import NORMAL, Sample

# Source: section 3 of the data set's README. The second group is the number of the view.
_SAMPLE = re.compile(r"([a-zA-Z][a-zA-Z0-9_]*_[0-9]{4}_[A-Z][A-Z_]*[A-Z])_C([0-9])_")
_RESOLUTION = re.compile(r"realiad_(\d+|raw)")  # names of the image folders
_JSONS = "realiad_jsons"  # the archive unpacks to a folder inside one of that name


class _Meta(TypedDict):
    prefix: str
    normal_class: str


class _Row(TypedDict):
    category: str
    anomaly_class: str
    image_path: str
    mask_path: str | None


class _Split(TypedDict):
    meta: _Meta
    train: list[_Row]
    test: list[_Row]


def matches(root: Path) -> bool:
    """Return whether a folder looks like Real-IAD or one of its resolutions."""
    names = [folder.name for folder in folders(root)]
    return (
        _JSONS in names
        or any(_RESOLUTION.fullmatch(name) for name in (root.resolve().name, *names))
        or any(path.stem in names for path in root.glob("*.json"))
    )


def index(root: Path, *, jsons: str = _JSONS, for_test: bool = False) -> list[Sample]:
    """List the images by category, training before test, in the order of the JSON.

    A sample is normal if its `anomaly_class` is the `normal_class` of the file. `sample_id` names
    the part, and `view` is the number of the camera, 1 to 5. `jsons` is the folder of the splits.
    With `for_test` nothing changes, since the splits list no photograph that may be missing.
    """
    found = [folder for folder in folders(root) if _RESOLUTION.fullmatch(folder.name)]
    if len(found) > 1:
        names = ", ".join(f"'{folder}'" for folder in found)
        raise InputError(
            f"'{root}' has several resolutions. Set --data.root to one of {names}. The smallest "
            f"one that is at least --data.image_size is the fastest to read."
        )
    images = found[0] if found else root
    return [sample for path in _splits(root, images, jsons) for sample in _category(path, images)]


def _splits(root: Path, images: Path, jsons: str) -> list[Path]:
    """Return the JSON file of each category that has images."""
    above = images.resolve().parent
    places = [parent / inner / jsons for parent in (root, above) for inner in (_JSONS, "")]
    places += [images] if jsons == _JSONS else []
    for place in places:
        found = sorted(place.glob("*.json")) if place.is_dir() else []
        here = [path for path in found if (images / path.stem).is_dir()]
        if here:
            return here
        if found:
            raise InputError(
                f"'{images}' has no folder for any category of '{place}', such as "
                f"'{found[0].stem}'. Unpack the images of Real-IAD there."
            )
    raise InputError(
        f"No splits of Real-IAD for '{images}': '{jsons}' is missing. Unpack realiad_jsons.zip to "
        f"'{above / _JSONS}'. For all views, <category>.json next to each category also works."
    )


def _category(path: Path, images: Path) -> Iterator[Sample]:
    parts: tuple[Literal["train", "test"], ...] = ("train", "test")
    split: _Split = read_split(path, _Split)
    folder, normal = images / split["meta"]["prefix"], split["meta"]["normal_class"]
    for part, row in ((each, row) for each in parts for row in split[each]):
        name = row["anomaly_class"]
        defect = NORMAL if name == normal or is_normal(name) else name
        if part == "train" and defect != NORMAL:
            raise InputError(
                f"'{path}' lists the defective image '{one_line(row['image_path'])}' "
                f"({one_line(defect)}) for training. Use realiad_jsons; the folders "
                f"realiad_jsons_fuiad_* are for noisy training."
            )
        image, mask = folder / row["image_path"], row["mask_path"]
        masks = (folder / mask,) if defect != NORMAL and mask else ()
        match = _SAMPLE.match(image.name)
        sample_id, view = (match[1], int(match[2])) if match else (None, None)
        yield Sample(image, masks, row["category"], defect, part, sample_id, view)
