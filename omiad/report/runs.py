"""The run folders that a report is made from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omiad.errors import InputError, MissingInputError
from omiad.report.archive import StoredImages, gallery_path, read_gallery
from omiad.report.curves import CategoryScores
from omiad.results import images_path, read_images, read_results


@dataclass(frozen=True)
class TestedRun:
    """What `omiad test` or `omiad evaluate` wrote.

    Attributes:
        path: The results.json.
        name: Its name on the page, which no other run has.
        record: The content of results.json.
        scores: The images of each category.
        stored: The pictures of each category; empty if the test kept none.
    """

    path: Path
    name: str
    record: Mapping[str, Any]
    scores: Mapping[str, CategoryScores]
    stored: Mapping[str, StoredImages]

    @property
    def kind(self) -> str:
        """AMDM or OmiAD; "maps" if another method made the maps."""
        return str(self.record.get("model", {}).get("kind", "unknown model"))

    @property
    def weights(self) -> Mapping[str, Any]:
        """Hashes of the model's weights and, for a student, of its teacher's."""
        return self.record.get("weights") or {}

    @property
    def metrics_csv(self) -> Path | None:
        """The log of the fit that wrote the checkpoint; None if it is gone."""
        checkpoint = self.record.get("checkpoint")
        path = Path(checkpoint).parent.parent / "metrics.csv" if checkpoint else None
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Runs:
    """All runs of a report.

    Attributes:
        tested: Tests and evaluations, in the given order.
        trainings: The metrics.csv of fits, by name.
    """

    tested: Sequence[TestedRun]
    trainings: Mapping[str, Path]

    @property
    def categories(self) -> list[str]:
        """The categories of all tests, sorted."""
        return sorted({name for run in self.tested for name in run.record["categories"]})

    @property
    def pairs(self) -> list[tuple[TestedRun, TestedRun]]:
        """Each teacher with its student; the hashes of their weights say which belong together."""
        return [
            (teacher, student)
            for student in self.tested
            for teacher in self.tested
            if teacher.weights.get("model")
            and teacher.weights["model"] == student.weights.get("teacher")
        ]


def read_runs(given: Sequence[str]) -> Runs:
    """Read run folders.

    Args:
        given: Folders of tests, evaluations and fits, or paths of results.json.

    Raises:
        MissingInputError: If a path does not exist.
        InputError: If a folder holds no run, holds files of several runs or is given twice, or if
            two runs share no category.
    """
    tested, trainings = [], dict[str, Path]()
    seen = set[Path]()
    for path in map(Path, given):
        if not path.exists():
            raise MissingInputError(f"No run folder at '{path}'. Check the path.")
        results = path if path.is_file() else path / "results.json"
        if results.resolve() in seen:
            raise InputError(f"'{path}' is given twice. Give each run once.")
        seen.add(results.resolve())
        if results.is_file():
            tested.append(_read(results))
        elif (path / "metrics.csv").is_file():
            name = _folder_name(path)
            trainings[str(path) if name in trainings else name] = path / "metrics.csv"
        else:
            raise InputError(
                f"'{path}' holds neither results.json (`omiad test`, `omiad evaluate`) nor "
                f"metrics.csv (`omiad fit`). Give a run folder."
            )
    for other in tested[1:]:
        if not set(other.record["categories"]) & set(tested[0].record["categories"]):
            raise InputError(
                f"'{tested[0].path}' and '{other.path}' share no category. Give runs on the same "
                f"data."
            )
    tested = _with_distinct_names(tested)
    known = {path.resolve() for path in trainings.values()}
    for run in tested:
        if run.metrics_csv is not None and run.metrics_csv.resolve() not in known:
            trainings[f"training of {run.name}"] = run.metrics_csv
            known.add(run.metrics_csv.resolve())
    return Runs(tested, trainings)


def _read(path: Path) -> TestedRun:
    record = read_results(path)
    scores = {}
    for category, images in read_images(images_path(path)):
        pixels = images.counts.sum(axis=0, dtype=np.float64) if images.has_mask.all() else None
        scores[category] = CategoryScores(images.name, images.score, images.is_anomalous, pixels)
    if scores.keys() != record["categories"].keys():
        raise _files_of_two_tests(path, images_path(path))
    stored = read_gallery(gallery_path(path))
    for category, pictures in stored.items():
        if category not in scores or not set(pictures.name) <= set(scores[category].name):
            raise _files_of_two_tests(path, gallery_path(path))
    return TestedRun(path, "", record, scores, stored)


def _files_of_two_tests(path: Path, other: Path) -> InputError:
    return InputError(
        f"'{path}' and the '{other.name}' beside it come from different tests. Copy both again "
        f"from one test."
    )


def _with_distinct_names(runs: Sequence[TestedRun]) -> list[TestedRun]:
    """Name each run by its model, with its folder where the model alone is not enough."""
    kinds = Counter(run.kind for run in runs)
    names = [
        f"{'peer' if run.kind == 'maps' else run.kind}, {_folder_name(run.path.parent)}"
        if kinds[run.kind] > 1 or run.kind == "maps"
        else run.kind
        for run in runs
    ]
    return [
        replace(run, name=f"{name} ({i + 1})" if names.count(name) > 1 else name)
        for i, (run, name) in enumerate(zip(runs, names, strict=True))
    ]


def _folder_name(folder: Path) -> str:
    """Return the name of a folder, with its parent's where its own says little."""
    folder = folder.resolve()
    says_little = folder.name == "test" or folder.name.startswith("version_")
    return f"{folder.parent.name}/{folder.name}" if says_little else folder.name
