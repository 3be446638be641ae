"""Files below the root of a data set that no sample uses, and why."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from omiad.data.check.fault import Fault, Level
from omiad.data.layouts import Index
from omiad.data.layouts.listing import LOST, is_for_masks, is_normal
from omiad.names import first_of
from omiad.photographs import IMAGE_SUFFIXES
from omiad.types import NORMAL

_BY_SPLIT = ("visa", "realiad", "realiad_sv")
"""Layouts in which a file of the data set lists the images."""

_OWN = {"predictions.csv", "predictions.jsonl", "results.json", "config.yaml", "record.json"}
"""Files by which a folder that omiad wrote is known."""

_SYSTEM = {"__MACOSX", "Thumbs.db", "desktop.ini", LOST}

_MASK_WORDS = ("gt", "mask", "label", "annotation", "segmentation", "ground")

_OTHER_PICTURES = re.compile(
    r"\.(apng|arw|avif|cr[23]|dib|dng|exr|gif|hei[cf]|ico|j2[ck]|j(fif|if|fi|ls|p2|pe|pf|pm|px|xl)|mpo"
    r"|nef|orf|p[bfgnp]m|pcx|psd|qoi|raw|rw2|sgi|svg|tga|xcf)"
)
"""Suffixes of pictures in formats that are not read."""


class Reason(NamedTuple):
    """Why files are not used."""

    level: Level
    kind: str
    why: str
    fix: str = ""


_HIDDEN = Reason("note", "hidden files", "hidden files and folders are left out")
_OURS = Reason("note", "files of omiad", "omiad wrote the folder")
_OTHER = Reason("note", "other files", "they are no photographs")
_UNLISTED = Reason("note", "other files", "the split does not list them")
_NO_FILE = Reason(
    "warning",
    "unused photographs",
    "they are pipes, devices, or links that lead nowhere",
    "Remove them, or correct the links.",
)
_NORMAL_MASKS = Reason("note", "other files", "normal images need no masks")
_SECOND_MASK = Reason(
    "warning",
    "unused masks",
    "their images have other masks",
    "To unite the masks of an image, call them <image>_mask_1, <image>_mask_2 and so on.",
)


class Tree(NamedTuple):
    """What lies below a root, by its path there: files, and folders that cannot be opened."""

    files: list[Path]
    locked: list[Path]


def tree_below(root: Path) -> Tree:
    """List all files below a root; links are followed, and each folder is visited once."""
    files: list[Path] = []
    locked: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def note(error: OSError) -> None:
        locked.append(Path(error.filename).relative_to(root))

    for folder, inner, names in os.walk(root, followlinks=True, onerror=note):
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in seen:
            inner.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        inner.sort()
        files += [Path(folder, name).relative_to(root) for name in sorted(names)]
    return Tree(files, locked)


def unused(root: Path, index: Index, tree: Tree, known: Collection[str]) -> Iterator[Fault]:
    """Yield a fault for each folder with files that no sample uses, and each reason.

    `known` are paths that another rule has reported.
    """
    reasons = _Reasons(root, index, tree)
    groups: dict[tuple[str, Reason], list[str]] = defaultdict(list)
    for path in tree.files:
        if path not in reasons.used and path.as_posix() not in known:
            depth = 1 if index.layout in _BY_SPLIT else len(path.parts)
            where = Path(*path.parts[:-1][:depth]).as_posix()
            groups[where, reasons.of(path)].append(path.as_posix())
    for (where, reason), paths in groups.items():
        names = [Path(path).relative_to(where).as_posix() for path in paths]
        what = f"{len(names)} not used, because {reason.why}: {first_of(names)}."
        yield Fault(reason.level, reason.kind, where, what, reason.fix, tuple(paths))


@dataclass
class _Reasons:
    """The rules by which an unused file is explained."""

    root: Path
    index: Index
    tree: Tree

    def __post_init__(self) -> None:
        samples = self.index.samples
        images = [sample.image.relative_to(self.root) for sample in samples]
        masks = [mask.relative_to(self.root) for sample in samples for mask in sample.masks]
        self.used = {*images, *masks}
        self.folders = {path.parent for path in images}
        self.mask_folders = {path.parent for path in masks}
        self.example = min(images, default=Path(NORMAL, "x")).parent.as_posix()
        self.ours = {path.parent for path in self.tree.files if path.name in _OWN}

    def of(self, path: Path) -> Reason:
        """Return why a file is not used."""
        suffix = path.suffix.lower()
        is_other = _OTHER_PICTURES.fullmatch(suffix)
        reason = None
        if any(part.startswith(".") or part in _SYSTEM for part in path.parts):
            reason = _HIDDEN
        elif self.ours & set(path.parents):
            reason = _OURS
        elif suffix not in IMAGE_SUFFIXES and not is_other:
            reason = _OTHER
        elif not (self.root / path).is_file():
            reason = _NO_FILE
        elif is_other:
            reason = _unread(f"{suffix} is not read", "Save them as PNG (.png) or JPEG (.jpg).")
        elif self.index.layout in _BY_SPLIT:
            reason = _UNLISTED
        return reason or self._of_place(path)

    def _of_place(self, path: Path) -> Reason:
        """Return why a photograph or mask at this place is not used."""
        inside = path.parts[:-1]
        above = next((each for each in path.parents[1:] if each in self.folders), None)
        tops = {each.parts[:1] for each in self.folders}
        if any(map(is_for_masks, inside)) and is_normal(inside[-1]):
            return _NORMAL_MASKS
        if path.parent in self.mask_folders or any(map(is_for_masks, inside)):
            return _SECOND_MASK
        if above is not None and above != Path():
            return _unread(
                f"folders within '{above.as_posix()}' are not read",
                f"Move them to '{above.as_posix()}'.",
            )
        if any(word in part for part in map(str.lower, inside) for word in _MASK_WORDS):
            return _unread(
                "the folder looks like masks, but lies where none are read",
                "If they are masks, move them to <category>/ground_truth/<defect>/, each with the "
                "name of its image and _mask.",
            )
        if path.parts[:1] not in tops:
            why = f"'{path.parts[0]}' is not a category of the {self.index.layout} layout"
        else:
            why = f"the {self.index.layout} layout has no images at this place"
        return _unread(why, f"Arrange them like the images in '{self.example}', or remove them.")


def _unread(why: str, fix: str) -> Reason:
    return Reason("warning", "unused photographs", why, fix)
