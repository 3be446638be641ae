"""Folders and image files sorted by name, and what a folder's name means; no file is opened."""

import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from omiad.errors import InputError
from omiad.photographs import IMAGE_SUFFIXES

LOST = "lost+found"
"""A folder that the file system makes at the root of a disk, and that nobody can open."""

NORMAL_NAMES = ("good", "normal", "ok")
"""Names of a folder of normal images, in upper or lower case."""

MASK_NAMES = ("groundtruth", "gt", "mask", "masks")
"""Names of a folder of masks, in upper or lower case, with or without `_`, `-` or a space."""


def folders(folder: Path) -> list[Path]:
    """Return the sub-folders of a folder, without hidden ones; none if the folder is missing."""
    return _entries(folder, folders=True)


def images(*of: Path) -> list[Path]:
    """Return the image files in some folders, without hidden ones; none of a missing folder."""
    files = [path for folder in of for path in _entries(folder, folders=False)]
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def named(folder: Path, *names: str) -> list[Path]:
    """Return the sub-folders that have one of the names, in upper or lower case."""
    wanted = {name.lower() for name in names}
    return [path for path in folders(folder) if path.name.lower() in wanted]


def normal_folders(folder: Path, *splits: str) -> list[Path]:
    """Return the sub-folders of normal images; if given, only those of some splits."""
    found = [(path, split_of_normal(path.name)) for path in folders(folder)]
    return [path for path, split in found if split in (splits or ("", "train", "test"))]


def split_of_normal(name: str) -> str | None:
    """Return the split in the name of a folder of normal images, or None for any other folder.

    The split is "test" for `good_test` or `Test-OK`, "train" alike, and "" for `good`.
    """
    parts = words(name)
    for split in ("", "train", "test"):
        if any(sorted(parts) == sorted(filter(None, (each, split))) for each in NORMAL_NAMES):
            return split
    return None


def is_normal(name: str) -> bool:
    """Return whether a folder of this name contains normal images."""
    return split_of_normal(name) is not None


def is_for_masks(name: str) -> bool:
    """Return whether a folder of this name contains masks."""
    return "".join(words(name)) in MASK_NAMES


def words(name: str) -> list[str]:
    """Return the parts of a name between spaces, `_`, `-` and the like, in lower case."""
    return [word for word in re.split(r"[\W_]+", name.lower()) if word]


def checksum(image: Path) -> tuple[int, str]:
    """Return what orders images arbitrarily, but alike in every run: the CRC-32 of the file name.

    The path follows, for images of one name.
    """
    return zlib.crc32(os.fsencode(image.name)), str(image)


def name_of(folder: Path) -> str:
    """Return the name of a folder as the user sees it: "." has a name too, a link keeps its own."""
    return Path(os.path.abspath(folder)).name


def listed(paths: Iterable[Path]) -> str:
    """Return the names of the first four paths, for a message."""
    return ", ".join(f"'{path.name}'" for path in list(paths)[:4])


def _entries(folder: Path, *, folders: bool) -> list[Path]:
    if not folder.is_dir():
        return []
    # The listing includes the type of each entry, so no further call per file is needed.
    with os.scandir(folder) as entries:
        found = [e.name for e in entries if _is_dir(e) == folders and not _is_hidden(e.name)]
    paths = [folder / name for name in sorted(found)]
    locked = [path for path in paths if folders and not os.access(path, os.R_OK | os.X_OK)]
    if locked:
        raise InputError(
            f"The folder '{locked[0]}' cannot be opened, so its images would be left out. Give "
            f"yourself the right to read it, or move it away."
        )
    return paths


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == LOST


def _is_dir(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
