"""The one door through which the samples of every layout pass before anything uses them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from omiad.errors import InputError
from omiad.names import check_name, folded, is_below, one_line
from omiad.types import Sample


def admit(samples: Sequence[Sample], root: Path, *, for_test: bool) -> None:
    """Check that the samples are apart and inside of the root, whatever names a file gives them.

    Raises:
        InputError: If a category or defect cannot be the name of a folder, or differs from another
            only in case; if a path leads out of the root; if an image is listed twice; or if a
            category has no training images, unless only tests are asked for.
    """
    defects: dict[str, set[str]] = {}
    for category, defect in dict.fromkeys((s.category, s.defect) for s in samples):
        check_name(category, kind="category", where=root)
        check_name(defect, kind="defect", where=root)
        defects.setdefault(category, set()).add(defect)
    for names, kind in (
        (defects.keys(), "categories"),
        *((d, "defects") for d in defects.values()),
    ):
        _check_apart(names, kind, root)
    _check_paths(samples, root)
    trained = {sample.category for sample in samples if sample.split == "train"}
    if not for_test and (bare := sorted(defects.keys() - trained)):
        raise InputError(
            f"The category '{bare[0]}' in '{root}' has no training images. Add some, or move the "
            f"category out of the data set."
        )


def _check_apart(names: Iterable[str], kind: str, root: Path) -> None:
    """Refuse names that many file systems take for one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            raise InputError(
                f"The {kind} {other!a} and {name!a} in '{root}' differ only in case or in the "
                f"spelling of an accent, and many file systems take them for one. Rename one, or "
                f"unite them."
            )


def _check_paths(samples: Sequence[Sample], root: Path) -> None:
    start = "" if root == Path() else os.path.join(root, "")  # how the paths below the root begin
    seen: set[str] = set()
    for sample in samples:
        for path in map(str, (sample.image, *sample.masks)):
            if not (path.startswith(start) and is_below(path.removeprefix(start))):
                raise InputError(
                    f"The path '{one_line(path)}' is not that of a file inside of '{root}'. "
                    f"Correct the file that lists it."
                )
        if str(sample.image) in seen:
            raise InputError(
                f"The image '{one_line(sample.name(root))}' is listed twice in '{root}'. Keep one "
                f"of the lines."
            )
        seen.add(str(sample.image))
