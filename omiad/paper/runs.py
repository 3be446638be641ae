"""The runs of a sweep: finished runs are skipped, interrupted runs are resumed.

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
from typing import Any

from omiad.errors import InputError
from omiad.files import write_whole
from omiad.lightning_cli import OmiadCLI, read_config
from omiad.paper.models import Model, configuration, latest_results, parts_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runs:
    """The fits and tests of models on one data set. Models with the same teacher share its fit.

    Attributes:
        dataset: Name in configs/amdm_<dataset>.yaml.
        root: Folder of the data set.
        folder: Folder of the runs, one subfolder for each model.
        configs: Folder of the configurations.
        small: Whether the small preset is laid over the data set's configuration.
        options: Further options of every fit, in one string.
        teacher_options: Further options of stage 1.
    """

    dataset: str
    root: Path
    folder: Path
    configs: Path
    small: bool = False
    options: str = ""
    teacher_options: str = ""

    def results(self, model: Model) -> Path:
        """Train whatever is missing, test, and return the results.json."""
        options = shlex.split(self.options)
        of_teacher = [*options, *shlex.split(self.teacher_options)]
        checkpoint = self._fitted(Model(model.teacher), "amdm", of_teacher)
        if model.distil is not None:
            checkpoint = self._fitted(model, "omiad", [f"--model.teacher={checkpoint}", *options])
        return self.tested(self.folder / model.folder, checkpoint)

    def minutes(self, model: Model) -> str:
        """Return how long the last stage of a finished model was trained, ? if unknown."""
        seconds = json.loads((self.folder / model.folder / "finished.json").read_text())["seconds"]
        return "?" if seconds is None else f"{seconds / 60:.0f}"

    def configurations(self, stage: str) -> list[Path]:
        """Return the configurations of a stage, "amdm" or "omiad", before any ablation."""
        names = [f"{stage}_{self.dataset}.yaml"]
        if self.small:
            names.append(f"ablation/{'small' if stage == 'amdm' else 'small_distil'}.yaml")
        return [configuration(self.configs, name) for name in names]

    def _fitted(self, model: Model, stage: str, options: Sequence[str]) -> Path:
        name = f"ablation/{model.distil or model.teacher}.yaml"
        files = [*self.configurations(stage), configuration(self.configs, name)]
        *before, last = [f"--config={file}" for file in files]
        # The last argument wins, so that no option changes what the ablation is about.
        arguments = [*before, f"--data.root={self.root}", *options, last]
        return self.fitted(self.folder / model.folder, files, arguments)

    def fitted(self, folder: Path, files: Sequence[Path], arguments: Sequence[str]) -> Path:
        """Start a fit, resume it, or find it finished; return its checkpoint.

        Args:
            folder: Folder of the fit.
            files: Its configurations. A fit whose configurations have changed is another fit.
            arguments: The arguments of `omiad fit`, including these configurations.

        Raises:
            InputError: If the folder holds a fit with other configurations or arguments, or a
                configuration is not YAML.
        """
        _claim(folder, files, arguments)
        finished = folder / "finished.json"
        if (done := _read(finished)) is not None:
            return folder / str(done["checkpoint"])
        if begun := _checkpoints(folder):
            logger.info("resuming from %s", begun[-1])
            arguments = [f"--ckpt_path={begun[-1]}"]
        part = folder / f"part_{len(parts_of(folder))}"
        start = time.monotonic()
        try:
            OmiadCLI(["fit", f"--run_dir={part}", *arguments])
        finally:
            part.mkdir(parents=True, exist_ok=True)
            write_whole(part / "seconds", f"{time.monotonic() - start:.1f}")
        # If the part before was killed after its last step, this part has written no checkpoint.
        begun = _checkpoints(folder)
        times = [_read(checkpoint.parents[1] / "seconds") for checkpoint in begun]
        record = {
            "checkpoint": str(begun[-1].relative_to(folder)),
            "seconds": None if None in times else sum(times),
            "parts": len(begun),
        }
        write_whole(finished, json.dumps(record, indent=2) + "\n")
        return begun[-1]

    def tested(self, folder: Path, checkpoint: Path, options: Sequence[str] = ()) -> Path:
        """Test a checkpoint unless its folder holds results, and return the results.json."""
        results = latest_results(folder)
        if results is None:
            part = folder / "test" / f"part_{len(parts_of(folder / 'test'))}"
            OmiadCLI(["test", f"--ckpt_path={checkpoint}", f"--run_dir={part}", *options])
            results = part / "results.json"
        return results


def _claim(folder: Path, files: Sequence[Path], arguments: Sequence[str]) -> None:
    """Record what a fit was given; refuse to continue a fit that was given something else."""
    # Contents are compared, not bytes, so that a comment may change.
    asked = {"arguments": list(arguments), "configurations": [read_config(f) for f in files]}
    path = folder / "asked.json"
    # A fit that failed before its first checkpoint may be started with other options.
    if _checkpoints(folder) and _read(path) != asked:
        raise InputError(
            f"'{folder}' holds a run with other configurations or options, recorded in its "
            f"asked.json. Give the same ones, or another --output."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(asked, indent=2) + "\n")


def _checkpoints(folder: Path) -> list[Path]:
    paths = [part / "checkpoints" / "last.ckpt" for part in parts_of(folder)]
    return [path for path in paths if path.is_file()]


def _read(path: Path) -> Any:
    """Return the content of a JSON file, None if it is missing or broken."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
