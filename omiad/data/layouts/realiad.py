"""The layout of Real-IAD: five views of each part, split and labelled by JSON files.

    Real-IAD/realiad_{256,512,1024}/<category>/OK/S0001/<category>_0001_OK_C1_<time>.jpg
    Real-IAD/realiad_{256,512,1024}/<category>/NG/<defect>/S0001/..._C1_<time>.{jpg,png}
    Real-IAD/realiad_jsons/<category>.json                  or realiad_jsons/realiad_jsons/

The root is `Real-IAD`, or the folder of one resolution if there are several. The layout
`realiad_sv` reads the single-view splits from `realiad_jsons_sv`, in either place. A root with
`<category>.json` next to each `<category>/` also works. Paths and labels come from the JSON: a view
that shows no defect has the label OK although its file is under NG.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from omiad.data.layouts.listing import folders
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

# Source: section 3 of the data set's README. The second group is the number of the view.
_SAMPLE = re.compile(r"([a-zA-Z][a-zA-Z0-9_]*_[0-9]{4}_[A-Z][A-Z_]*[A-Z])_C([0-9])_")
_RESOLUTION = re.compile(r"realiad_(\d+|raw)")  # names of the image folders
_JSONS = "realiad_jsons"  # the archive unpacks to a folder inside one of that name
_KEYS = {"category", "anomaly_class", "image_path", "mask_path"}


def matches(root: Path) -> bool:
    """Return whether a folder looks like Real-IAD or one of its resolutions."""
    names = [folder.name for folder in folders(root)]
    return (
        _JSONS in names
        or any(_RESOLUTION.fullmatch(name) for name in (root.resolve().name, *names))
        or any((root / f"{name}.json").is_file() for name in names)
    )


def index(root: Path, *, jsons: str = _JSONS) -> list[Sample]:
    """List the images by category, training before test, in the order of the JSON.

    A sample is normal if its `anomaly_class` is the `normal_class` of the file. `sample_id` names
    the part, and `view` is the number of the camera, 1 to 5. `jsons` is the folder of the splits.
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
    try:
        split = json.loads(path.read_text())
        folder, normal = images / split["meta"]["prefix"], split["meta"]["normal_class"]
        rows = [(part, row) for part in parts for row in split[part]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"'{path}' is not a split of Real-IAD ({type(error).__name__}: {error}). Unpack "
            f"realiad_jsons.zip again."
        ) from error
    for part, row in rows:
        if set(row) != _KEYS:
            raise InputError(
                f"A row of '{part}' in '{path}' has the keys {sorted(row)} instead of "
                f"{sorted(_KEYS)}. Unpack realiad_jsons.zip again."
            )
        defect = NORMAL if row["anomaly_class"] == normal else row["anomaly_class"]
        if part == "train" and defect != NORMAL:
            raise InputError(
                f"'{path}' lists the defective image '{row['image_path']}' ({defect}) for training."
                f" Use realiad_jsons; the folders realiad_jsons_fuiad_* are for noisy training."
            )
        image, mask = folder / row["image_path"], row["mask_path"]
        masks = (folder / mask,) if defect != NORMAL and mask else ()
        match = _SAMPLE.match(image.name)
        sample_id, view = (match[1], int(match[2])) if match else (None, None)
        yield Sample(image, masks, row["category"], defect, part, sample_id, view)
