"""Folders and image files sorted by name; no file is opened."""

import os
from pathlib import Path

from omiad.data.images import IMAGE_SUFFIXES
from omiad.errors import InputError, MissingInputError


def folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a folder, sorted, without hidden ones."""
    return [folder / name for name in _names(folder, folders=True)]


def images(folder: Path) -> list[Path]:
    """Return the image files in a folder, sorted, without hidden ones."""
    names = _names(folder, folders=False)
    return [folder / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def masks(folder: Path) -> dict[str, Path]:
    """Map the stem of each image to its mask in a folder; `000_mask` is preferred to `000`."""
    if not folder.is_dir():
        return {}
    by_stem = {path.stem: path for path in images(folder)}
    named = {stem.removesuffix("_mask"): path for stem, path in by_stem.items() if "_mask" in stem}
    return by_stem | named


def check_root(root: Path) -> None:
    """Check that the root of a data set is a folder.

    Raises:
        MissingInputError: If the folder does not exist.
    """
    if not root.is_dir():
        raise MissingInputError(
            f"No folder '{root}'. Set --data.root to the folder that contains the categories."
        )


def check_empty(folder: Path) -> None:
    """Check that an output folder is missing or empty.

    Raises:
        InputError: If the folder contains anything.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"'{folder}' is not empty. Give a folder that does not exist yet.")


def _names(folder: Path, *, folders: bool) -> list[str]:
    # The listing includes the type of each entry, so no further call per file is needed.
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir() == folders
        )
