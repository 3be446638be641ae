"""Rows of figures: those of each run, and the paper's where it has the data set."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from omiad.data.layouts.published import recognise
from omiad.metrics.table import HEADINGS
from omiad.paper.printed import DATASETS, MEAN, category_key, dataset_of, paper_table
from omiad.report.runs import TestedRun


class Row(NamedTuple):
    """Figures of one method on one category.

    Attributes:
        category: Name of the category, None for the mean.
        method: The run, or the method of the paper.
        figures: Figures in %, those that are defined.
        intervals: Low and high in %, those that are known.
        is_papers: Whether the paper printed the figures.
    """

    category: str | None
    method: str
    figures: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    is_papers: bool

    @property
    def is_shown(self) -> bool:
        """Whether the row is shown at first: the paper's methods only if omiad implements them."""
        return not self.is_papers or self.method in ("OmiAD", "AMDM")


def rows_of(run: TestedRun) -> list[Row]:
    """Return the figures of a run, the mean first."""
    intervals = run.record["intervals"]
    ranges = {None: intervals["mean"], **intervals["categories"]} if intervals else {}
    return [
        Row(
            category,
            run.name,
            {key: 100 * row[key] for key in HEADINGS if row.get(key) is not None},
            {key: (100 * low, 100 * high) for key, (low, high) in ranges.get(category, {}).items()},
            is_papers=False,
        )
        for category, row in {None: run.record["mean"], **run.record["categories"]}.items()
    ]


def paper_rows(categories: Sequence[str]) -> list[Row]:
    """Return the figures that the paper prints of these categories, under our names of them.

    The paper's means are over all categories of a data set, so they are left out where some of
    the categories are missing here.
    """
    title = DATASETS.get(recognise(categories) or "")
    ours = {category_key(name): name for name in categories}
    has_mean = dataset_of(categories) is not None
    found: dict[tuple[str | None, str], dict[str, float]] = {}
    # The means of all data sets, then two tables of the categories of each.
    for printed in (cell for number in (1, *range(4, 12)) for cell in paper_table(number)):
        is_mean = printed.category == MEAN
        name = None if is_mean else ours.get(category_key(printed.category))
        if printed.dataset == title and (has_mean if is_mean else name is not None):
            # Some means are printed twice and differ: Table 1, which comes first, decides.
            row = found.setdefault((name, printed.method), {})
            row |= {key: value for key, value in printed.figures.items() if key not in row}
    return [Row(*key, figures, {}, is_papers=True) for key, figures in found.items()]


def best_figures(rows: Iterable[Row]) -> dict[tuple[str | None, str], str]:
    """Return the best figure of each category and column, as it is printed, of all rows shown."""
    best: dict[tuple[str | None, str], float] = {}
    for row in rows:
        for key, value in row.figures.items() if row.is_shown else ():
            best[row.category, key] = max(value, best.get((row.category, key), 0.0))
    return {key: f"{value:.1f}" for key, value in best.items()}


def in_words(rows: Iterable[Row], category: str, key: str) -> str:
    """Return a sentence with a figure of each run."""
    return "; ".join(
        f"{row.method}: {HEADINGS[key]} {row.figures[key]:.1f} %"
        for row in rows
        if row.category == category and key in row.figures
    )
