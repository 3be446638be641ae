"""The models that fill a table of the paper, and their runs: skipped if finished, else resumed.

A fit lies in parts, `part_0`, `part_1`, ...; each part resumes the last checkpoint before it.
`asked.json` records what the fit was given, and `finished.json` its final checkpoint.
"""

import json
import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omiad.configurations import find_configuration
from omiad.errors import InputError, MissingInputError
from omiad.files import write_whole
from omiad.lightning_cli import OmiadCLI
from omiad.settings import read_config

logger = logging.getLogger(__name__)

ABLATIONS = (3, 13, 14, 15)
"""Tables whose rows are variants of OmiAD."""

_CHECKPOINT = "checkpoints/last.ckpt"


class Model(NamedTuple):
    """The files in configs/ablation that configure stage 1 of a model and stage 2, if any."""

    teacher: str
    distil: str | None = None

    @property
    def folder(self) -> str:
        """Name of the model's folder in a sweep."""
        return "_".join(filter(None, self))


def models_of_table(number: int, *, configs: Path | None, small: bool) -> dict[str, Model]:
    """Return the models of a table or of its small preset, by the paper's names, in its order."""
    if number not in ABLATIONS:
        models = {"AMDM": Model("adaptive_mask"), "OmiAD": Model("adaptive_mask", "asd")}
        return models if number == 1 else {"OmiAD": models["OmiAD"]}
    tables = read_config(configuration(configs, "ablation/tables"))
    return {
        name: Model((small and row.get("small_teacher")) or row["teacher"], row.get("distil"))
        for name, row in tables[number].items()
    }


@dataclass(frozen=True)
class Runs:
    """The fits and tests of models on one data set. Models with the same teacher share its fit.

    The data set is named as in the configuration amdm_<dataset>, over which `small` lays the small
    preset. `configs` is a folder of other configurations than omiad's own. The sweep's folder has a
    subfolder for each model. Options are arguments in one string.
    """

    dataset: str
    root: Path
    folder: Path
    configs: Path | None = None
    small: bool = False
    options: str = ""
    teacher_options: str = ""

    def results(self, model: Model) -> Path:
        """Train the missing stages, test, and return the results.json."""
        root, options = f"--data.root={self.root}", shlex.split(self.options)
        of_teacher = [root, *options, *shlex.split(self.teacher_options)]
        checkpoint = self.fitted("amdm", self.folder / model.teacher, of_teacher, model.teacher)
        folder = self.folder / model.folder
        if model.distil is not None:
            of_student = [root, f"--model.teacher={checkpoint}", *options]
            checkpoint = self.fitted("omiad", folder, of_student, model.distil)
        return self.tested(folder, checkpoint)

    def minutes(self, model: Model) -> str:
        """Return the training time of a finished model's last stage, or ? if it is unknown."""
        seconds = _read(self.folder / model.folder / "finished.json")["seconds"]
        return "?" if seconds is None else f"{seconds / 60:.0f}"

    def fitted(
        self, stage: str, folder: Path, options: Sequence[str], ablation: str | None = None
    ) -> Path:
        """Start a fit, resume it, or find it finished; return its checkpoint.

        The stage is "amdm" or "omiad". No option overrides an ablation, a file in configs/ablation.
        """
        names = [f"{stage}_{self.dataset}"]
        if self.small:
            names.append("ablation/small" if stage == "amdm" else "ablation/small_distil")
        row = [] if ablation is None else [f"ablation/{ablation}"]  # the last argument wins
        files = [configuration(self.configs, name) for name in (*names, *row)]
        arguments = [*(f"--config={name}" for name in names), *options]
        arguments += [f"--config={name}" for name in row]
        # Contents are compared, not bytes, so that a comment may change.
        asked = {"arguments": arguments, "configurations": [read_config(file) for file in files]}
        begun = in_parts(folder, _CHECKPOINT)
        # A fit that failed before its first checkpoint may be started with other options.
        if begun and _read(folder / "asked.json") != asked:
            raise InputError(
                f"'{folder}' holds a run with other configurations or options, recorded in its "
                f"asked.json. Give the same ones, or another --output."
            )
        if done := _read(folder / "finished.json"):
            return folder / str(done["checkpoint"])
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "asked.json", json.dumps(asked, indent=2) + "\n")
        if begun:
            logger.info("resuming from %s", begun[-1])
            arguments = [f"--ckpt_path={begun[-1]}"]
        else:
            found = {
                f"--config={n}": f"--config={f}" for n, f in zip(names + row, files, strict=True)
            }
            arguments = [found.get(each, each) for each in arguments]
        return _train(folder, arguments)

    def tested(self, folder: Path, checkpoint: Path, options: Sequence[str] = ()) -> Path:
        """Test a checkpoint unless its folder holds results, and return the results.json."""
        if results := latest_results(folder):
            return results
        part = _next_part(folder / "test")
        OmiadCLI(["test", f"--ckpt_path={checkpoint}", f"--run_dir={part}", *options])
        return part / "results.json"


def _train(folder: Path, arguments: Sequence[str]) -> Path:
    """Run the next part of a fit to its end, record that it is finished, return its checkpoint."""
    part = _next_part(folder)
    start = time.monotonic()
    try:
        OmiadCLI(["fit", f"--run_dir={part}", *arguments])
    finally:
        part.mkdir(parents=True, exist_ok=True)
        write_whole(part / "seconds", f"{time.monotonic() - start:.1f}")
    # If the part before was killed after its last step, this part has written no checkpoint.
    checkpoints = in_parts(folder, _CHECKPOINT)
    times = [_read(checkpoint.parents[1] / "seconds") for checkpoint in checkpoints]
    record = {
        "checkpoint": str(checkpoints[-1].relative_to(folder)),
        "seconds": None if None in times else sum(times),
        "parts": len(checkpoints),
    }
    write_whole(folder / "finished.json", json.dumps(record, indent=2) + "\n")
    return checkpoints[-1]


def configuration(configs: Path | None, name: str) -> Path:
    """Return a configuration by its name, from a folder or, without one, from this package.

    Raises:
        MissingInputError: If there is none of that name.
    """
    if configs is None:
        return find_configuration(name)
    path = configs / f"{name}.yaml"
    if not path.is_file():
        raise MissingInputError(
            f"No '{name}.yaml' in '{configs}'. Leave --configs out to take omiad's own."
        )
    return path


def sweep_results(number: int, sweep: Path, *, configs: Path | None = None) -> dict[str, Path]:
    """Return the results.json of each model of a table that a sweep has tested."""
    models = models_of_table(number, configs=configs, small=sweep.name.endswith("_small"))
    found = {name: latest_results(sweep / model.folder) for name, model in models.items()}
    return {name: path for name, path in found.items() if path}


def latest_results(folder: Path) -> Path | None:
    """Return the results.json of a model's folder, or None if the model has not been tested."""
    return next(reversed(in_parts(folder / "test", "results.json")), None)


def in_parts(folder: Path, file: str) -> list[Path]:
    """Return a file of each part of an interrupted run or test that has it, in their order."""
    numbers = (path.name.removeprefix("part_") for path in folder.glob("part_*"))
    parts = (
        folder / f"part_{number}" for number in sorted(map(int, filter(str.isdecimal, numbers)))
    )
    return [part / file for part in parts if (part / file).is_file()]


def _next_part(folder: Path) -> Path:
    return folder / f"part_{len(list(folder.glob('part_*')))}"


def _read(path: Path) -> Any:
    """Return the content of a JSON file, None if it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
