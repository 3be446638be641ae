"""Folders and image files in order of their names; no file is opened."""

import os
from pathlib import Path

from omiad.data.images import IMAGE_SUFFIXES
from omiad.errors import MissingInputError


def folders(folder: Path) -> list[Path]:
    """Return the sub-folders, sorted; hidden ones are left out."""
    return [folder / name for name in _names(folder, folders=True)]


def images(folder: Path) -> list[Path]:
    """Return the image files, sorted; hidden ones are left out."""
    names = _names(folder, folders=False)
    return [folder / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]


def masks(folder: Path) -> dict[str, Path]:
    """Map the stem of an image to its mask in a folder; `000_mask` goes before `000`."""
    if not folder.is_dir():
        return {}
    by_stem = {path.stem: path for path in images(folder)}
    named = {stem.removesuffix("_mask"): path for stem, path in by_stem.items() if "_mask" in stem}
    return by_stem | named


def check_root(root: Path) -> None:
    """Refuse a root that is no folder.

    Raises:
        MissingInputError: If the root does not exist.
    """
    if not root.is_dir():
        raise MissingInputError(
            f"No folder '{root}'. Give --data.root the folder that holds one folder per category."
        )


def _names(folder: Path, *, folders: bool) -> list[str]:
    # The kind of an entry comes with the listing: no further call to the file system per file.
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith(".") and entry.is_dir() == folders
        )
