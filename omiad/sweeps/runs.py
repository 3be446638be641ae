"""Runs that may be interrupted anywhere: what is done is skipped, what was begun goes on."""

import json
import logging
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omiad.errors import InputError, MissingInputError
from omiad.files import write_whole
from omiad.lightning_cli import OmiadCLI, read_config
from omiad.results import read_results

logger = logging.getLogger(__name__)

FINISHED = "finished.json"
"""Beside the parts of a fit: its checkpoint and what it took."""

SECONDS = "seconds"
"""In each part: how long it was trained."""


class Row(NamedTuple):
    """A model of a table.

    Attributes:
        teacher: Ablation of stage 1.
        distil: Ablation of stage 2, None for the teacher itself.
    """

    teacher: str
    distil: str | None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.teacher if self.distil is None else f"{self.teacher}_{self.distil}"


class Runs:
    """The runs on one data set, each in a folder of its own; a teacher is trained once for all.

    A fit lies in parts: a new one goes on from the last checkpoint of those before.

    Args:
        dataset: Name in configs/amdm_<dataset>.yaml.
        root: Folder of the data set.
        folder: Where the runs lie.
        configs: Folder of the configurations.
        small: Whether the small preset comes before each row.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1.

    Raises:
        MissingInputError: If there is no configuration for the data set.
    """

    def __init__(
        self,
        dataset: str,
        root: Path,
        folder: Path,
        *,
        configs: Path,
        small: bool,
        options: str,
        teacher_options: str,
    ) -> None:
        self.root = root
        self.folder = folder
        self.base = {kind: configs / f"{kind}_{dataset}.yaml" for kind in ("amdm", "omiad")}
        self.ablations = configs / "ablation"
        self.small = small
        self.options = shlex.split(options)
        self.teacher_options = shlex.split(teacher_options)
        for path in self.base.values():
            if not path.is_file():
                raise MissingInputError(
                    f"No '{path.name}' in '{configs}'. Run from a checkout of omiad, or give "
                    f"--configs."
                )

    def results(self, row: Row) -> dict[str, Any]:
        """Train what is missing, test, and return the results of a row."""
        teacher = self._teacher(row.teacher)
        checkpoint = teacher if row.distil is None else self._distilled(row, teacher)
        return self.tested(self.folder / row.name, checkpoint)

    def seconds(self, row: Row) -> float | None:
        """Return how long the last stage of a finished row was trained, all its parts together.

        Returns:
            None where a part was killed before it could say.
        """
        finished = json.loads((self.folder / row.name / FINISHED).read_text())
        return None if finished["seconds"] is None else float(finished["seconds"])

    def _teacher(self, name: str) -> Path:
        files = [self.base["amdm"], *self.preset("small"), self.ablations / f"{name}.yaml"]
        arguments = self._laid_over(files, [*self.options, *self.teacher_options])
        return self.fitted(self.folder / name, files, arguments)

    def _distilled(self, row: Row, teacher: Path) -> Path:
        ablation = self.ablations / f"{row.distil}.yaml"
        files = [self.base["omiad"], *self.preset("small_distil"), ablation]
        options = [f"--model.teacher={teacher}", *self.options]
        return self.fitted(self.folder / row.name, files, self._laid_over(files, options))

    def _laid_over(self, files: Sequence[Path], options: Sequence[str]) -> list[str]:
        *before, ablation = [f"--config={file}" for file in files]
        # Later ones win: what a row is about cannot be changed by an option.
        return [*before, f"--data.root={self.root}", *options, ablation]

    def preset(self, name: str) -> list[Path]:
        """Return what makes a stage small, small or small_distil, where this is asked for."""
        return [self.ablations / f"{name}.yaml"] if self.small else []

    def fitted(self, folder: Path, files: Sequence[Path], arguments: Sequence[str]) -> Path:
        """Return the checkpoint of a fit, begun, gone on with, or there already.

        Args:
            folder: Where it lies.
            files: The configurations, whose change makes it another fit.
            arguments: What `omiad fit` is given, these configurations among it.
        """
        self._claim(folder, files, arguments)
        finished = folder / FINISHED
        if (done := _read(finished)) is not None:
            return folder / str(done["checkpoint"])
        parts = _parts(folder)
        part = folder / f"part_{len(parts)}"
        begun = [path for p in parts if (path := _checkpoint(p)).is_file()]
        if begun:
            logger.info("going on from %s", begun[-1])
            arguments = (f"--ckpt_path={begun[-1]}",)
        start = time.monotonic()
        try:
            OmiadCLI(["fit", f"--run_dir={part}", *arguments])
        finally:
            part.mkdir(parents=True, exist_ok=True)
            write_whole(part / SECONDS, f"{time.monotonic() - start:.1f}")
        # A part killed behind its last step leaves the next one nothing to do.
        begun += [path] if (path := _checkpoint(part)).is_file() else []
        times = [_read(checkpoint.parents[1] / SECONDS) for checkpoint in begun]
        record = {
            "checkpoint": str(begun[-1].relative_to(folder)),
            "seconds": None if None in times else sum(times),
            "parts": len(begun),
        }
        write_whole(finished, json.dumps(record, indent=2) + "\n")
        return begun[-1]

    def tested(self, folder: Path, checkpoint: Path, options: Sequence[str] = ()) -> dict[str, Any]:
        """Return the results of a checkpoint's test, made now or there already."""
        results = finished_results(folder)
        if results is not None:
            return results
        part = folder / "test" / f"part_{len(_parts(folder / 'test'))}"
        OmiadCLI(["test", f"--ckpt_path={checkpoint}", f"--run_dir={part}", *options])
        return read_results(part / "results.json")

    def _claim(self, folder: Path, files: Sequence[Path], arguments: Sequence[str]) -> None:
        """Remember what a run is made of, and refuse to go on with another's.

        Raises:
            InputError: If the folder holds a run with other configurations or options, or a
                configuration is not YAML.
        """
        # What they say, not their bytes: a comment is no other configuration.
        configurations = [read_config(file) for file in files]
        asked = {"arguments": list(arguments), "configurations": configurations}
        path = folder / "asked.json"
        # A run that failed before its first checkpoint, perhaps by a wrong option, binds nobody.
        is_begun = any(_checkpoint(part).is_file() for part in _parts(folder))
        if is_begun and _read(path) != asked:
            raise InputError(
                f"'{folder}' holds a run with other configurations or options; asked.json there "
                f"says which. Give the same ones, or another --output."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(asked, indent=2) + "\n")


def tested_results(folder: Path) -> Path | None:
    """Return the results.json of a row's folder, None where it has not been tested."""
    done = [path for part in _parts(folder / "test") if (path := part / "results.json").is_file()]
    return done[-1] if done else None


def finished_results(folder: Path) -> dict[str, Any] | None:
    """Return the results of a row's folder, None where it has not been tested."""
    path = tested_results(folder)
    return None if path is None else read_results(path)


def _read(path: Path) -> Any:
    """Return what a JSON file says, None where it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part_*"), key=lambda path: int(path.name.removeprefix("part_")))


def _checkpoint(part: Path) -> Path:
    return part / "checkpoints" / "last.ckpt"
