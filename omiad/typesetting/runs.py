"""Which runs make a table: found, named, and refused where they do not belong together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omiad.errors import InputError, MissingInputError
from omiad.metrics.detection import Figures
from omiad.paper import categories_of, category_key, dataset_of
from omiad.results import read_results, refuse_other_measures
from omiad.sweeps import rows_of_table
from omiad.sweeps.runs import tested_results

_OF_ONE_MODEL = ("maps", "scores")
"""Parts of a model's description in which its seeds may differ."""


@dataclass(frozen=True)
class Run:
    """A results.json and where it belongs in a table.

    Attributes:
        name: What the model is called; runs of one name on one data set are its seeds.
        path: The file.
        record: What it holds.
    """

    name: str
    path: Path
    record: dict[str, Any]

    @cached_property
    def published(self) -> str | None:
        """Which of the paper's data sets this is, by its categories; None if it is none."""
        return dataset_of(self.record["categories"])

    @cached_property
    def dataset(self) -> str:
        """The paper's name of the data set, or its own."""
        return self.published or str(self.record["dataset"])

    @cached_property
    def categories(self) -> dict[str, Figures]:
        """Figures of each category, named and ordered as in the paper if it has them."""
        figures = {
            name: row | self.record["further"]["categories"][name]
            for name, row in self.record["categories"].items()
        }
        if self.published is None:
            return figures
        by_key = {category_key(name): row for name, row in figures.items()}
        return {name: by_key[key] for key, name in categories_of(self.published).items()}

    @property
    def mean(self) -> Figures:
        """Figures over all categories."""
        return {**self.record["mean"], **self.record["further"]["mean"]}


def find_runs(results: Sequence[str], *, table: int, configs: Path) -> list[Run]:
    """Read what was given: files, folders that hold one, or sweeps, each perhaps as NAME=PATH.

    Args:
        results: What was given.
        table: Number of the table, which says what of a sweep belongs there.
        configs: Folder of the configurations, which name the rows of an ablation.

    Raises:
        MissingInputError: If there are no results.
        InputError: If the runs do not belong together.
    """
    runs = [run for text in results for run in _named(text, table, configs)]
    files = [run.path.resolve() for run in runs]
    for path in files:
        if files.count(path) > 1:
            raise InputError(f"'{path}' is given twice. Give each run once.")
    refuse_other_measures({run.path: run.record for run in runs})
    for i, run in enumerate(runs):
        for other in runs[:i]:
            _refuse_mixture(other, run)
    return runs


def _named(text: str, table: int, configs: Path) -> list[Run]:
    label, equals, rest = text.partition("=")
    if not (label and equals) or Path(text).exists():  # a path may hold an = itself
        return list(_found(Path(text), table, configs))
    runs = list(_found(Path(rest).expanduser(), table, configs))
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs)
        raise InputError(
            f"'{rest}' holds several runs ({names}), which cannot all be called '{label}'. Name "
            f"their folders one by one."
        )
    return [replace(run, name=label) for run in runs]


def _found(path: Path, table: int, configs: Path) -> Iterator[Run]:
    file = path / "results.json" if (path / "results.json").is_file() else tested_results(path)
    if path.is_file() or file:
        file = file or path
        record = _read(file)
        yield Run(_own_name(record, file), file, record)
        return
    rows = rows_of_table(table, path, configs=configs) if path.is_dir() else {}
    done = {name: file for name, file in rows.items() if file is not None}
    if not done:
        raise MissingInputError(
            f"No results for Table {table} at '{path}'. Give a results.json, the folder it lies in "
            f"or the folder of a sweep."
        )
    for name, file in done.items():
        yield Run(name, file, _read(file))


def _read(path: Path) -> dict[str, Any]:
    record = read_results(path)
    if "further" not in record:
        raise InputError(
            f"'{path}' is of an older version and lacks the figures of Table 12. Test again."
        )
    return record


def _own_name(record: dict[str, Any], path: Path) -> str:
    """Return the kind of omiad's models; other methods are called like their folder."""
    kind = record.get("model", {}).get("kind", "maps")
    return path.resolve().parent.name if kind == "maps" else str(kind)


def _refuse_mixture(first: Run, other: Run) -> None:
    if first.dataset != other.dataset:
        return
    names = [sorted(run.record["categories"]) for run in (first, other)]
    if names[0] != names[1]:
        raise InputError(
            f"'{first.path}' has the categories {', '.join(names[0])}, but '{other.path}' "
            f"{', '.join(names[1])}. Take runs on the same data."
        )
    if first.name != other.name:
        return
    one, two = (run.record.get("model", {}) for run in (first, other))
    for key in sorted((one.keys() | two.keys()) - set(_OF_ONE_MODEL)):
        if one.get(key) != two.get(key):
            raise InputError(
                f"'{first.path}' and '{other.path}' are both called {first.name}, but differ in "
                f"{key}: {one.get(key)} and {two.get(key)}. Call them apart, NAME=PATH."
            )
