"""The configurations that travel with omiad, found by name from any folder."""

from difflib import get_close_matches
from pathlib import Path

from omiad.errors import MissingInputError

PACKAGE = Path(__file__).parent
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
"""Where the configurations lie in an installed package, and in a checkout."""


def find_configuration(name: str) -> Path:
    """Return the file of a configuration: a path, or a name such as "amdm_folder".

    A file that exists beats a name.

    Raises:
        MissingInputError: If there is neither a file nor a configuration of that name.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = configurations()
    if (file := known.get(path.with_suffix("").as_posix())) and path.suffix in ("", ".yaml"):
        return file
    near = get_close_matches(path.stem, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"The names are {', '.join(known)}."
    raise MissingInputError(f"No configuration '{name}': neither a file nor a name. {hint}")


def configurations() -> dict[str, Path]:
    """Return the configurations of this package by name, such as "ablation/table_12_x0"."""
    folder = next((each for each in FOLDERS if each.is_dir()), FOLDERS[0])
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
