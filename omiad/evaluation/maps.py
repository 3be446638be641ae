"""Anomaly maps and image scores on disk: which file belongs to which image, and what is in it."""

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.arrays import HIGHEST, read_array
from omiad.errors import InputError, MissingInputError
from omiad.evaluation.dumps import image_of, is_dump, read_pred
from omiad.files import full_disk_named, whole_file
from omiad.metrics import Results
from omiad.names import cell, first_of, one_line
from omiad.photographs.opening import load, opened
from omiad.results import gallery_path, images_path

T = TypeVar("T")

MAP_SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff"})
"""Suffixes of map files; case is ignored."""

_LARGEST = 2**28
"""Most bytes of a map: 8192 x 8192 float32 numbers."""

_MAX_NAMED = 20
_EXACT_INTEGERS = 2**24
"""Up to here float32 holds every integer."""


def find_maps(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the map of each image: the file at its path below the root, with another suffix.

    Where two images differ in their suffix alone, another suffix follows their own: 000.png.npy for
    000.png. A file of `omiad.evaluation.dumps` belongs to the image that it names inside, wherever
    it lies. A results.json and the files next to it may lie among the maps. An image without a map,
    a map without an image, and two maps of one image are refused.
    """
    if not folder.is_dir():
        raise MissingInputError(f"No folder '{folder}'. Give --maps the folder of the maps.")
    found = sorted(folder.rglob("*"))
    records = [path for path in found if path.suffix == ".json"]
    of_results = {beside(path) for path in records for beside in (images_path, gallery_path)}
    files: dict[str, list[Path]] = defaultdict(list)
    stems = dict(zip(names, map_stems(names), strict=True))
    for path in found:
        if path.suffix.lower() in MAP_SUFFIXES and path.is_file() and path not in of_results:
            files[_image_stem(path, folder, stems)].append(path)
    sentence = f"The maps in '{folder}' do not fit the test images."
    if alike := set(names) & set(map_stems(names)):
        example = one_line(PurePosixPath(min(alike)).name)
        sentence += f" Images that differ in their suffix alone need maps such as '{example}.npy'."
    return _matched(names, files, "map", sentence)


def read_map(path: Path) -> Tensor:
    """Read a map (H, W) as float32, without scaling.

    An npy or npz file holds one array, or is one of `omiad.evaluation.dumps`; axes of length 1 are
    dropped. A picture has one channel. Numbers that are not finite or not exact in float32 are
    refused, and so are maps of more than 8192 x 8192 float32 numbers.
    """
    array = _read_array(path)
    array = array.squeeze() if array.ndim > 2 else array
    if array.ndim != 2:
        raise InputError(f"'{path}' has shape {array.shape}; a map is (H, W).")
    is_float = array.dtype.kind == "f"
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > (4 if is_float else 8):
        raise InputError(
            f"'{path}' holds {array.dtype}, but figures rank float32. Save "
            f"array.astype(numpy.float32)."
        )
    if not is_float and array.size and np.abs(array.astype(float)).max() > _EXACT_INTEGERS:
        raise InputError(f"'{path}' holds integers that float32 rounds. Save floating-point maps.")
    if not np.isfinite(array).all():
        raise InputError(f"'{path}' holds NaN or infinite scores. Save finite scores.")
    return torch.from_numpy(array.astype(np.float32))


def _read_array(path: Path) -> NDArray[Any]:
    if is_dump(path):
        return read_pred(path, largest=_LARGEST)
    if path.suffix.lower() in (".npy", ".npz"):
        return read_array(path, largest=_LARGEST, mend="Save the map alone, as a float32 array.")
    with opened(path) as image:
        if image.mode == "P":
            raise ValueError("its numbers are colours of a palette, not scores")
        if image.width * image.height * 4 > _LARGEST:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        if (pages := getattr(image, "n_frames", 1)) != 1:
            raise ValueError(f"it holds {pages} pages, not one map")
        load(image)  # numpy would hide an error
        return np.array(image)


def read_scores(path: Path, names: Sequence[str]) -> Tensor:
    """Read the scores (N,), float64, of images from a table with the columns image and score.

    An image is named by its path below the root of the data set, with any suffix, and has one
    finite score.
    """
    if not path.is_file():
        raise MissingInputError(f"No table '{path}'. Check --scores.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or ()
            table = list(rows)
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"'{path}' is not a CSV table in UTF-8 ({error}).") from error
    if not {"image", "score"} <= set(columns):
        has = ", ".join(columns) or "none"
        raise InputError(f"'{path}' needs the columns image and score, but has {has}.")
    given: dict[str, list[float]] = defaultdict(list)
    stems = dict(zip(names, map_stems(names), strict=True))
    stems |= {cell(name): stem for name, stem in stems.items()}  # as `write_scores` writes them
    for row in table:
        try:
            score = float(row["score"] or "")
        except ValueError:
            score = math.nan
        image = (row["image"] or "").replace("\\", "/")
        given[stems.get(image, _stem(image))].append(score)
    sentence = f"The scores in '{path}' do not fit the test images."
    scores = dict(zip(names, _matched(names, given, "score", sentence), strict=True))
    strange = [name for name, score in scores.items() if not abs(score) <= HIGHEST]
    complain(sentence, {"no finite number for": strange})
    return torch.tensor(list(scores.values()), dtype=torch.float64)


def map_stems(names: Sequence[str]) -> list[str]:
    """Return the path of the map of each image without its suffix, which no other image has.

    It is the image's path without its suffix. Where that names several images, it is the whole
    path.
    """
    count = Counter(map(_stem, names))
    whole = {name for name in names if count[_stem(name)] > 1}
    while more := {name for name in names if _stem(name) in whole} - whole:
        whole |= more
    return [name if name in whole else _stem(name) for name in names]


def write_maps(folder: Path, files: Sequence[str], maps: Tensor) -> None:
    """Write maps (B, H, W) as npy files, float32."""
    for file, pixels in zip(files, maps.float().cpu().numpy(), strict=True):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_named(path):
            np.save(path, pixels)


def write_scores(path: Path, names: Sequence[str], results: Results) -> None:
    """Write the image scores of all categories as a table that `read_scores` reads."""
    with (
        whole_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(("image", "score"))
        for images in results.images.values():
            shown = [cell(names[i]) for i in images.index.tolist()]
            rows.writerows(zip(shown, images.score.tolist(), strict=True))


def complain(sentence: str, faults: Mapping[str, Sequence[str]]) -> None:
    """Refuse with all faults, kind by kind, if there are any."""
    parts = []
    for kind, named in faults.items():
        if named:
            parts.append(f"{kind} {len(named)}: {first_of(named, _MAX_NAMED)}")
    if parts:
        raise InputError(f"{sentence} {'; '.join(parts)}.")


def _matched(
    names: Sequence[str], found: Mapping[str, list[T]], what: str, sentence: str
) -> list[T]:
    """Return what was found for each image, which must be one thing, by the stem of its name."""
    stems = map_stems(names)
    images = dict(zip(stems, names, strict=True))
    several = [
        f"{stem} ({len(things)} for {images[stem]})"
        for stem, things in found.items()
        if stem in images and len(things) > 1
    ]
    complain(sentence, {
        f"no {what} for": [name for name, stem in zip(names, stems, strict=True)
                           if stem not in found],
        "no image for": [stem for stem in found if stem not in images],
        f"not one {what} for one image:": several,
    })  # fmt: skip
    return [found[stem][0] for stem in stems]


def _image_stem(path: Path, folder: Path, stems: Mapping[str, str]) -> str:
    """Return the stem of the image that a map belongs to, from the stems of all images."""
    if is_dump(path):
        image = image_of(path)
        return stems.get(image, _stem(image))
    return _stem(path.relative_to(folder).as_posix())


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.name else path).as_posix()
