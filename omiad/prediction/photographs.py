"""Which photographs `omiad predict` scores; no file is opened."""

import glob
import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from omiad.errors import InputError, MissingInputError
from omiad.files import check_regular
from omiad.photographs import IMAGE_SUFFIXES
from omiad.prediction.journal import JOURNAL
from omiad.prediction.table import TABLES

logger = logging.getLogger(__name__)

_PREDICTED = (*TABLES.values(), JOURNAL)

_OUTPUTS = {
    "overlays": _PREDICTED,
    "masks": _PREDICTED,
    "panels": ("results.json",),
    "pictures": ("index.html",),
    "curves.png": ("metrics.csv",),
}
"""Pictures that omiad writes, each with the files beside it that tell them from photographs."""


class Photograph(NamedTuple):
    """A file to score.

    Attributes:
        path: The file, as it was named or found.
        name: Its path below the folder that was named, or its file name.
        stamp: Size and time of its last change; a file with another stamp is another photograph.
        fault: Why it cannot be read, as one sentence; empty for nearly all.
    """

    path: Path
    name: str
    stamp: tuple[int, int] = (0, 0)
    fault: str = ""


def find_photographs(given: Sequence[str]) -> list[Photograph]:
    """Return the files that are named, and those in named folders and their sub-folders.

    Links are followed, and each file is taken once. A path that does not exist may be a pattern,
    such as "photos/*.png". In folders, hidden files and folders, and pictures that omiad itself
    wrote, are left out. What cannot be read has a fault: a file that is missing, a locked folder, a
    pipe.

    Raises:
        MissingInputError: If nothing exists at any of the paths.
        InputError: If the folders contain no image.
    """
    check_given(given)
    left_out: Counter[str] = Counter()
    found = look(given, left_out)
    if left_out:
        counts = ", ".join(f"{num} {kind}" for kind, num in sorted(left_out.items()))
        logger.info("left out: %s", counts)
    if not found:
        shown = ", ".join(f"'{path}'" for path in given)
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{shown} contains no image ({suffixes}). Check PHOTOS.")
    return found


def check_given(given: Sequence[str]) -> None:
    """Refuse paths at none of which anything exists."""
    if not any(map(os.path.lexists, _expanded(given))):
        shown = ", ".join(f"'{path}'" for path in given)
        raise MissingInputError(f"There is no photograph or folder at {shown}. Check PHOTOS.")


def look(given: Sequence[str], left_out: Counter[str] | None = None) -> list[Photograph]:
    """Return the photographs at some paths, if any, and count what is left out, by its kind."""
    left_out = Counter() if left_out is None else left_out
    found: dict[str, Photograph] = {}  # by their real path
    for path in _expanded(given):
        if os.path.isdir(path):
            below: dict[str, Photograph] = {}
            for real, photograph in _below(path, left_out):
                below.setdefault(real, photograph)  # the direct path comes first
            for real, photograph in sorted(below.items(), key=lambda each: each[1].path):
                found.setdefault(real, photograph)
        else:
            found.setdefault(os.path.realpath(path), _photograph(path, path.name))
    return [*found.values()]


def _expanded(given: Sequence[str]) -> list[Path]:
    """Replace patterns, which a quoted argument or a shell of Windows leaves, by what they fit."""
    paths: list[Path] = []
    for path in given:
        fits = [] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
        paths += map(Path, fits or [path])
    return paths


def state_of(photographs: Sequence[Photograph]) -> str:
    """Return a hash of the paths, sizes and times of photographs."""
    whole = hashlib.sha256()
    for path, _, stamp, _ in photographs:
        whole.update(os.fsencode(path) + b"\0%d\0%d\0" % stamp)
    return whole.hexdigest()


def _below(root: Path, left_out: Counter[str]) -> Iterator[tuple[str, Photograph]]:
    """Yield the image files below a folder by their real paths, those behind links last."""
    pending, seen, linked = deque([root]), set[str](), list[Path]()
    while pending:
        folder = pending.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = [entry for entry in listing if not entry.name.startswith(".")]
        except OSError as error:
            fault = f"The folder '{folder}' cannot be listed ({error.strerror}). Unlock it."
            yield real, Photograph(folder, folder.relative_to(root).as_posix(), fault=fault)
            continue
        below = folder.relative_to(root)
        for entry in entries:
            path, is_link = folder / entry.name, entry.is_symlink()
            suffix = os.path.splitext(entry.name)[1].lower()
            if _is_output(os.path.realpath(path) if is_link else os.path.join(real, entry.name)):
                left_out[f"'{path}' (an output of omiad)"] += 1
            elif os.path.isdir(path) if is_link else entry.is_dir():
                (pending.appendleft if is_link else pending.append)(path)
            elif suffix not in IMAGE_SUFFIXES:
                left_out[suffix or "files without a suffix"] += 1
            elif is_link:
                linked.append(path)
            else:
                yield (
                    os.path.join(real, entry.name),
                    _photograph(path, (below / path.name).as_posix()),
                )
    for path in linked:
        yield os.path.realpath(path), _photograph(path, path.relative_to(root).as_posix())


def _photograph(path: Path, name: str) -> Photograph:
    """Describe a file; a pipe or a device would block whoever opens it."""
    try:
        state = check_regular(path)
    except InputError as error:
        return Photograph(path, name, fault=str(error))
    return Photograph(path, name, (state.st_size, state.st_mtime_ns))


def _is_output(path: str) -> bool:
    """Return whether omiad wrote a folder or file of pictures, by what lies beside it."""
    folder, name = os.path.split(path)
    beside = [Path(folder, each) for each in _OUTPUTS.get(name, ())]
    return any(each.is_file() and (each.suffix != ".html" or _is_page(each)) for each in beside)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b'<meta name="generator" content="omiad' in file.read(2000)
