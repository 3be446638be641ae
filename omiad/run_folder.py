"""The folder of a run, which belongs to one process and is removed if the run leaves nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from omiad.errors import InputError
from omiad.files import lock_beside, only_writer

CONFIG = "config.yaml"
"""File that a run writes before it does anything."""

OF_A_RUN = (CONFIG, "results.json", "metrics.csv", "checkpoints")
"""Files and folders by which a folder holds a run."""


@contextmanager
def claimed_folder(run_dir: str | None, kind: str) -> Iterator[Path]:
    """Claim a folder for a new run, and yield it; by default a new runs/<kind>/version_<n>.

    A run that fails before it has written anything else leaves neither config.yaml nor an empty
    folder, so the same command can be given again.

    Raises:
        InputError: If the folder holds a run, or another process is writing to it.
        OSError: If the folder cannot be written.
    """
    folder = _new_version(Path("runs", kind)) if run_dir is None else Path(run_dir)
    is_new = run_dir is None or not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    with only_writer(lock_beside(folder), owner=folder):
        if any((folder / name).exists() for name in OF_A_RUN):
            raise InputError(
                f"'{folder}' already holds a run. Choose another --run_dir, or leave the option "
                f"out for a new folder; a fit is resumed with --ckpt_path "
                f"{folder}/checkpoints/last.ckpt."
            )
        try:
            yield folder
        except BaseException:
            if {path.name for path in place.glob("*")} <= {CONFIG}:
                (place / CONFIG).unlink(missing_ok=True)
                if is_new and place.exists():
                    place.rmdir()
            raise


def _new_version(parent: Path) -> Path:
    """Create and return the next version_<n>, which no other process can have created."""
    taken = [path.name.removeprefix("version_") for path in parent.glob("version_*")]
    for number in count(max((int(n) + 1 for n in taken if n.isdecimal()), default=0)):
        folder = parent / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError
