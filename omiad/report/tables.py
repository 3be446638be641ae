"""The tables of a page: the figures of each run, with the paper's where it has the data set."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from omiad.data.layouts.published import recognise
from omiad.paper import MEAN, category_key, dataset_of, paper_table
from omiad.report.runs import TestedRun

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AU-PRO",
    "mad": "mAD",
}
"""Each figure with its heading."""

_PAPER_TABLES = {
    "mvtec": ("MVTec-AD", (1, 4, 5)),
    "visa": ("VisA", (1, 6, 7)),
    "mpdd": ("MPDD", (1, 8, 9)),
    "realiad": ("Real-IAD", (1, 10, 11)),
}

_SHOWN_OF_PAPER = ("OmiAD", "AMDM")
"""Methods of the paper that are shown at first: those that omiad implements."""


class Cell(NamedTuple):
    """One figure.

    Attributes:
        value: In %, None if undefined.
        interval: Low and high in %, None if unknown.
        is_best: Whether no method shown at first has a higher figure.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    is_best: bool = False


class Row(NamedTuple):
    """Figures of one method on one category.

    Attributes:
        category: Name of the category, or "mean".
        method: The run, or the method of the paper.
        cells: Its figures, in the order of `FIGURES`.
        is_papers: Whether the paper printed the figures.
    """

    category: str
    method: str
    cells: Sequence[Cell]
    is_papers: bool

    @property
    def is_shown(self) -> bool:
        """Whether the row is shown before the reader chooses methods."""
        return not self.is_papers or self.method in _SHOWN_OF_PAPER


def result_rows(runs: Sequence[TestedRun], categories: Sequence[str]) -> list[Row]:
    """Return the figures of all runs and of the paper, the best of each category marked."""
    rows = [row for run in runs for row in _rows_of(run)] + paper_rows(categories)
    best: dict[tuple[str, int], float] = {}
    for row in filter(lambda row: row.is_shown, rows):
        for place, cell in enumerate(row.cells):
            if cell.value is not None:
                key = row.category, place
                best[key] = max(round(cell.value, 1), best.get(key, 0.0))

    def is_best(row: Row, place: int) -> bool:
        value = row.cells[place].value
        return row.is_shown and value is not None and round(value, 1) == best[row.category, place]

    return [
        row._replace(
            cells=[cell._replace(is_best=is_best(row, i)) for i, cell in enumerate(row.cells)]
        )
        for row in rows
    ]


def _rows_of(run: TestedRun) -> list[Row]:
    figures = {MEAN: run.record["mean"], **run.record["categories"]}

    def cell(category: str, key: str) -> Cell:
        value = figures[category].get(key)
        if value is None:
            return Cell(None)
        low, high = run.intervals.get(category, {}).get(key, (None, None))
        within = None if low is None or high is None else (100 * low, 100 * high)
        return Cell(100 * value, within)

    return [
        Row(category, run.name, [cell(category, key) for key in FIGURES], is_papers=False)
        for category in figures
    ]


def paper_rows(categories: Sequence[str]) -> list[Row]:
    """Return the figures that the paper prints of these categories, under our names of them.

    The paper's means are over all categories of a data set, so they are left out where some of
    the categories are missing here.
    """
    dataset = recognise(set(categories)) if categories else None
    if dataset not in _PAPER_TABLES:
        return []
    title, tables = _PAPER_TABLES[dataset]
    ours = {category_key(name): name for name in categories}
    if dataset_of(categories) is not None:
        ours[MEAN] = MEAN
    found: dict[tuple[str, str], dict[str, float]] = {}
    for number in tables:
        for printed in paper_table(number):
            name = ours.get(category_key(printed.category))
            if printed.dataset == title and name is not None:
                # Some means are printed twice and differ: Table 1, which comes first, decides.
                row = found.setdefault((name, printed.method), {})
                row |= {key: value for key, value in printed.figures.items() if key not in row}
    return [
        Row(category, method, [Cell(row.get(key)) for key in FIGURES], is_papers=True)
        for (category, method), row in found.items()
    ]


def figure_of(run: TestedRun, category: str, key: str) -> tuple[float, float, float] | None:
    """Return a figure with the ends of its interval in %, None if it is undefined."""
    value = run.record["categories"].get(category, {}).get(key)
    if value is None:
        return None
    low, high = run.intervals.get(category, {}).get(key, (value, value))
    return 100 * value, 100 * low, 100 * high


def figures_in_words(runs: Sequence[TestedRun], category: str, key: str) -> str:
    """Say a figure of each run."""
    found = [(run.name, figure_of(run, category, key)) for run in runs]
    return "; ".join(f"{name}: {FIGURES[key]} {row[0]:.1f} %" for name, row in found if row)


def num_steps(record: Mapping[str, Any]) -> str:
    """Say how many denoising steps a model takes."""
    count = record.get("model", {}).get("num_steps", "unknown number of")
    return "one step" if count == 1 else f"{count} steps"
