"""The run folders that a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import isfile  # unlike Path.is_file, it takes any text
from pathlib import Path
from typing import Any

import numpy as np

from omiad.errors import InputError, MissingInputError
from omiad.files import expanded
from omiad.record import MEND, read_results
from omiad.report.archive import StoredImages, read_gallery
from omiad.report.curves import CategoryScores
from omiad.results import gallery_path, read_images, refuse_another_test


@dataclass(frozen=True)
class TestedRun:
    """What `omiad test` or `omiad evaluate` wrote.

    Attributes:
        path: The results.json.
        name: Its name on the page, which no other run has.
        record: The content of results.json.
        root: Folder of the photographs.
        scores: The images of each category.
        stored: The pictures of each category; empty if the test kept none.
    """

    path: Path
    name: str
    record: Mapping[str, Any]
    root: Path
    scores: Mapping[str, CategoryScores]
    stored: Mapping[str, StoredImages]

    @property
    def images(self) -> set[tuple[str, str]]:
        """Category and name of every tested image."""
        return {(category, n) for category, of in self.scores.items() for n in of.name.tolist()}


def read_runs(given: Sequence[str], root: str | None) -> tuple[list[TestedRun], dict[str, Path]]:
    """Return the tests in the given order, and the metrics.csv of fits by name.

    The root is the folder of the photographs, by default the one that each run was tested on.
    """
    if root is not None and not expanded(root).is_dir():
        raise MissingInputError(f"No folder '{root}'. Check --root.")
    tests, trainings, seen = list[Path](), dict[str, Path](), set[Path]()
    for path in map(Path, given):
        if not path.exists():
            raise MissingInputError(f"No run folder at '{path}'. Check the path.")
        results = path if path.is_file() else path / "results.json"
        if results.resolve() in seen:
            raise InputError(f"'{path}' is given twice. Give each run once.")
        seen.add(results.resolve())
        if results.is_file():
            tests.append(results)
        elif (path / "metrics.csv").is_file():
            name = _folder_name(path)
            trainings[str(path) if name in trainings else name] = path / "metrics.csv"
        else:
            raise InputError(
                f"'{path}' holds neither results.json (`omiad test`, `omiad evaluate`) nor "
                f"metrics.csv (`omiad fit`). Give a run folder."
            )
    records = {path: read_results(path) for path in tests}
    for path, record in records.items():
        if not record["categories"].keys() & records[tests[0]]["categories"].keys():
            raise InputError(
                f"'{tests[0]}' and '{path}' share no category. Give runs on the same data."
            )
    tested = [
        _read(path, name, records[path], root)
        for path, name in zip(records, _names(records), strict=True)
    ]
    known = {path.resolve() for path in trainings.values()}
    for run in tested:
        checkpoint = run.record["checkpoint"]
        fit = Path(checkpoint).parent.parent / "metrics.csv" if checkpoint else None
        if fit is not None and isfile(fit) and fit.resolve() not in known:
            trainings[f"training of {run.name}"] = fit
            known.add(fit.resolve())
    return tested, trainings


def categories_of(runs: Sequence[TestedRun]) -> list[str]:
    """Return the categories of all tests, sorted."""
    return sorted({name for run in runs for name in run.scores})


def _names(records: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """Name each run by its model, with its folder where the model alone is not enough."""
    kinds = [of["model"].get("kind", "unknown model") for of in records.values()]
    names = [
        f"{'peer' if kind == 'maps' else kind}, {_folder_name(path.parent)}"
        if kind == "maps" or kinds.count(kind) > 1
        else kind
        for path, kind in zip(records, kinds, strict=True)
    ]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _folder_name(folder: Path) -> str:
    """Return the name of a folder, with its parent's name if its own is generic."""
    folder = folder.resolve()
    says_little = folder.name == "test" or folder.name.startswith("version_")
    return f"{folder.parent.name}/{folder.name}" if says_little else folder.name


def _read(path: Path, name: str, record: Mapping[str, Any], root: str | None) -> TestedRun:
    scores, gallery = {}, gallery_path(path)
    for category, images in read_images(path, record):
        pixels = images.counts.sum(axis=0, dtype=np.float64) if images.has_mask.all() else None
        scores[category] = CategoryScores(images.name, images.score, images.is_anomalous, pixels)
    if gallery.exists():
        refuse_another_test(path, gallery, record["digests"]["gallery"])
    folder = expanded(record["root"] if root is None else root)
    run = TestedRun(path, name, record, folder, scores, read_gallery(gallery))
    if not {(category, n) for category, of in run.stored.items() for n in of.name} <= run.images:
        raise InputError(f"'{gallery}' shows images that were not tested. {MEND}")
    return run
