"""Folders and image files sorted by name; no file is opened."""

import os
from pathlib import Path

from omiad.data.opening import IMAGE_SUFFIXES
from omiad.errors import InputError


def folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a folder, without hidden ones; none if the folder is missing."""
    return _entries(folder, folders=True)


def images(folder: Path) -> list[Path]:
    """Return the image files in a folder, without hidden ones; none if the folder is missing."""
    files = _entries(folder, folders=False)
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def masks(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Map the stem of each image to its mask in a folder; `000_mask` is preferred to `000`."""
    by_stem: dict[str, tuple[Path, ...]] = {path.stem: (path,) for path in images(folder)}
    named = {
        stem.removesuffix("_mask"): found for stem, found in by_stem.items() if "_mask" in stem
    }
    return by_stem | named


def check_empty(folder: Path) -> None:
    """Raise an `InputError` if an output folder contains anything."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty. Give a folder that does not exist yet.")


def _entries(folder: Path, *, folders: bool) -> list[Path]:
    if not folder.is_dir():
        return []
    # The listing includes the type of each entry, so no further call per file is needed.
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if e.is_dir() == folders and not e.name.startswith(".")]
    return [folder / name for name in sorted(found)]
