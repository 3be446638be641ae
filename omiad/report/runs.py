"""The run folders that a report is made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omiad.errors import InputError, MissingInputError
from omiad.gallery import KeptImages, gallery_path, read_gallery
from omiad.report.detection import CategoryScores
from omiad.results import images_path, read_images, read_results


@dataclass(frozen=True)
class TestedRun:
    """What `omiad test` or `omiad evaluate` left.

    Attributes:
        path: The results.json.
        name: What the page calls it; no two runs are called alike.
        record: What the file holds.
        scores: The images of each category.
        kept: Their maps, of those that were kept.
    """

    path: Path
    name: str
    record: Mapping[str, Any]
    scores: Mapping[str, CategoryScores]
    kept: Mapping[str, KeptImages]

    @property
    def kind(self) -> str:
        """AMDM, OmiAD, maps, ..."""
        return str(self.record.get("model", {}).get("kind", "unknown model"))

    @property
    def weights(self) -> Mapping[str, Any]:
        """Hashes of the model's weights and, of a student, its teacher's; older tests lack them."""
        return self.record.get("weights") or {}

    @property
    def scale(self) -> tuple[float, float] | None:
        """Scores drawn as darkest and brightest, None where no map was kept."""
        low, high = self.record.get("map_range") or (None, None)
        return None if low is None or high is None else (float(low), float(high))

    @property
    def training(self) -> Path | None:
        """The metrics.csv of the run that wrote the checkpoint, where it is still there."""
        checkpoint = self.record.get("checkpoint")
        path = Path(checkpoint).parent.parent / "metrics.csv" if checkpoint else None
        return path if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Runs:
    """All runs of a report.

    Attributes:
        tested: Tests and evaluations, in the order they were given.
        trainings: Curves of training runs, by name.
    """

    tested: Sequence[TestedRun]
    trainings: Mapping[str, Path]

    @property
    def categories(self) -> list[str]:
        """The categories of all tests, sorted."""
        return sorted({name for run in self.tested for name in run.record["categories"]})


def taught(runs: Sequence[TestedRun]) -> list[tuple[TestedRun, TestedRun]]:
    """Pair each student with its teacher, told by its weights.

    Of older tests, which do not say them, one of each kind is a pair, and so are those of one seed.
    """
    teachers, students = ([run for run in runs if run.kind == kind] for kind in ("AMDM", "OmiAD"))
    is_only_pair = len(teachers) == len(students) == 1

    def is_pair(teacher: TestedRun, student: TestedRun) -> bool:
        own, learned_from = teacher.weights.get("model"), student.weights.get("teacher")
        if own and learned_from:
            return bool(own == learned_from)
        seed = teacher.record.get("seed")
        return is_only_pair or (seed is not None and seed == student.record.get("seed"))

    return [(t, s) for s in students for t in teachers if is_pair(t, s)]


def read_runs(given: Sequence[str]) -> Runs:
    """Read run folders.

    Args:
        given: Folders of tests, evaluations and training runs, or their results.json.

    Raises:
        MissingInputError: If there is nothing at a path.
        InputError: If a folder holds no run or files of several, is given twice, or runs share no
            category.
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
                f"'{path}' holds no run: neither results.json (`omiad test`, `omiad evaluate`) nor "
                f"metrics.csv (`omiad fit`). Give a run folder."
            )
    for other in tested[1:]:
        if not set(other.record["categories"]) & set(tested[0].record["categories"]):
            raise InputError(
                f"'{tested[0].path}' and '{other.path}' share no category. Report runs on the same "
                f"data."
            )
    tested = _told_apart(tested)
    in_folders = {path.resolve() for path in trainings.values()}
    for run in tested:
        if run.training is not None and run.training.resolve() not in in_folders:
            trainings[f"training of {run.name}"] = run.training
            in_folders.add(run.training.resolve())
    return Runs(tested, trainings)


def _read(path: Path) -> TestedRun:
    record = read_results(path)
    scores = {}
    for category, images in read_images(images_path(path)):
        pixels = images.counts.sum(axis=0, dtype=np.float64) if images.has_mask.all() else None
        scores[category] = CategoryScores(images.name, images.score, images.is_anomalous, pixels)
    if scores.keys() != record["categories"].keys():
        raise InputError(
            f"'{path}' and the '{images_path(path).name}' beside it are of different tests. Keep "
            f"the files of a test together."
        )
    kept = read_gallery(gallery_path(path)) if record.get("map_range") else {}
    for category, pictures in kept.items():
        if category not in scores or not set(pictures.name) <= set(scores[category].name):
            raise InputError(
                f"'{path}' and the '{gallery_path(path).name}' beside it are of different tests. "
                f"Keep the files of a test together."
            )
    name = str(record.get("model", {}).get("kind", "unknown model"))
    return TestedRun(path, "peer" if name == "maps" else name, record, scores, kept)


def _told_apart(runs: Sequence[TestedRun]) -> list[TestedRun]:
    """Add to each name the folder, of peers always and of others where names are the same."""
    kinds = Counter(run.name for run in runs)
    named = [
        replace(run, name=f"{run.name}, {_folder_name(run.path.parent)}")
        if kinds[run.name] > 1 or run.name == "peer"
        else run
        for run in runs
    ]
    names = Counter(run.name for run in named)
    return [
        replace(run, name=f"{run.name} ({i + 1})") if names[run.name] > 1 else run
        for i, run in enumerate(named)
    ]


def _folder_name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if "version_" in folder.name else folder.name
