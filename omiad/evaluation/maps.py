"""Anomaly maps on disk: which file belongs to which image, and what is in it."""

import csv
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from omiad.errors import InputError, MissingInputError
from omiad.report import gallery_path
from omiad.results import images_path

MAP_SUFFIXES = frozenset({".npy", ".npz", ".png", ".tif", ".tiff"})
"""Suffixes of map files, in lower case; compared without regard to case."""

_UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow and numpy report broken files by."""

_MAX_NAMED = 20
_EXACT_INTEGERS = 2**24
"""Up to here float32 holds every integer."""


def find_maps(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the map of each image: at its image's path, with another suffix.

    A results.json, and the images beside it, may lie among the maps.

    Args:
        folder: Folder of the maps.
        names: Path of each image below the root of the data set, with forward slashes.

    Raises:
        MissingInputError: If there is no such folder.
        InputError: If a map is missing, belongs to no image, or is not the only one.
    """
    if not folder.is_dir():
        raise MissingInputError(f"No folder '{folder}'. Give --maps the folder of the maps.")
    files: dict[str, list[Path]] = defaultdict(list)
    found = sorted(folder.rglob("*"))
    of_results = {
        beside(path)
        for path in found
        if path.suffix == ".json"
        for beside in (images_path, gallery_path)
    }
    for path in found:
        if path.suffix.lower() in MAP_SUFFIXES and path.is_file() and path not in of_results:
            files[_stem(path.relative_to(folder).as_posix())].append(path)
    images = _by_stem(names)
    missing = [name for name in names if _stem(name) not in files]
    extra = [path for stem, paths in files.items() if stem not in images for path in paths]
    ambiguous = [
        " and ".join(map(str, paths if len(paths) > 1 else images[stem]))
        for stem, paths in files.items()
        if stem in images and (len(paths) > 1 or len(images[stem]) > 1)
    ]
    complain(f"The maps in '{folder}' do not fit the test images.", {
        "no map for": missing,
        "no image for": extra,
        "which belong together of": ambiguous,
    })  # fmt: skip
    return [files[_stem(name)][0] for name in names]


def read_map(path: Path) -> Tensor:
    """Read a map as float32, without scaling.

    npy and npz hold one array; axes of length 1 do not count. Pictures have one channel.

    Returns:
        Scores (H, W).

    Raises:
        InputError: If the file holds no such map, or numbers that float32 would round or that are
            not finite.
    """
    array = _read_array(path)
    array = array.squeeze() if array.ndim > 2 else array
    if array.ndim != 2:
        raise InputError(f"'{path}' has shape {array.shape}; a map is (H, W).")
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > (4 if _is_float(array) else 8):
        raise InputError(
            f"'{path}' holds {array.dtype}, but figures rank float32. Save "
            f"array.astype(numpy.float32)."
        )
    if not _is_float(array) and array.size and np.abs(array.astype(float)).max() > _EXACT_INTEGERS:
        raise InputError(f"'{path}' holds integers that float32 rounds. Save floating-point maps.")
    if not np.isfinite(array).all():
        raise InputError(f"'{path}' holds NaN or infinite scores.")
    return torch.from_numpy(array.astype(np.float32))


def read_scores(path: Path, names: Sequence[str]) -> Tensor:
    """Read the image scores of a method from a table with the columns image and score.

    Args:
        path: CSV file; `image` is a path below the root of the data set, whatever its suffix.
        names: Path of each image below the root, with forward slashes.

    Returns:
        Scores of the images (N,), float64.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If a score is missing, twice there, of no image, or no finite number.
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
        raise InputError(f"'{path}' needs the columns image and score, but has "
                         f"{', '.join(columns) or 'none'}.")  # fmt: skip
    given: dict[str, list[str]] = defaultdict(list)
    for row in table:
        given[_stem((row["image"] or "").replace("\\", "/"))].append(row["score"] or "")
    images = _by_stem(names)
    complain(f"The scores in '{path}' do not fit the test images.", {
        "no score for": [name for name in names if _stem(name) not in given],
        "no image for": [stem for stem in given if stem not in images],
        "more than one of": [
            stem for stem in given
            if stem in images and (len(given[stem]) > 1 or len(images[stem]) > 1)
        ],
        "no finite number for": [
            stem for stem, texts in given.items() if not all(map(_is_number, texts))
        ],
    })  # fmt: skip
    return torch.tensor([float(given[_stem(name)][0]) for name in names], dtype=torch.float64)


def complain(sentence: str, faults: Mapping[str, Iterable[Any]]) -> None:
    """Name all faults, kind by kind, if there are any.

    Raises:
        InputError: If there are.
    """
    parts = []
    for kind, things in faults.items():
        named = [str(thing) for thing in things]
        if named:
            more = f" and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
            parts.append(f"{kind} {len(named)}: {', '.join(named[:_MAX_NAMED])}{more}")
    if parts:
        raise InputError(f"{sentence} {'; '.join(parts)}.")


def _read_array(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    try:
        if suffix not in (".npy", ".npz"):
            with Image.open(path) as image:
                if image.mode == "P":
                    raise ValueError("its numbers are colours of a palette, not scores")
                arrays = [np.array(image)] * getattr(image, "n_frames", 1)
        else:
            with path.open("rb") as file:
                held = np.load(file, allow_pickle=False)
                is_one = isinstance(held, np.ndarray)
                arrays = [held] if is_one else [held[name] for name in held.files]
    except _UNREADABLE as error:
        raise InputError(f"'{path}' cannot be read as a map ({error}).") from error
    if len(arrays) != 1:
        raise InputError(f"'{path}' holds {len(arrays)} arrays, so that the map is not known.")
    return arrays[0]


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f"


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    images: dict[str, list[str]] = defaultdict(list)
    for name in names:
        images[_stem(name)].append(name)
    return images


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return (path.with_suffix("") if path.name else path).as_posix()
