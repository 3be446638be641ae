"""What stands in a table: a model on a data set, its seeds summed up, or one of the paper's."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from omiad.errors import InputError
from omiad.metrics.detection import Figures
from omiad.paper import MEAN, PaperRow, categories_of, category_key, paper_table
from omiad.report.markup import printable
from omiad.typesetting.runs import Run

Seeds = Mapping[str, Sequence[float | None]]
"""By metric one figure in % for each seed, None where it is undefined."""


class Entry(NamedTuple):
    """A model on a data set.

    Attributes:
        name: What it is called.
        dataset: Name of the data set.
        categories: Figures of each category.
        mean: Figures over all categories.
        is_printed: Whether the paper prints the figures.
    """

    name: str
    dataset: str
    categories: Mapping[str, Seeds]
    mean: Seeds
    is_printed: bool = False

    @property
    def title(self) -> str:
        """Name that says where the figures are the paper's."""
        return f"{printable(self.name)} (paper)" if self.is_printed else printable(self.name)


def own_entries(runs: Sequence[Run]) -> list[Entry]:
    """Join runs of one name on one data set: they are the seeds of one model."""
    models: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        models.setdefault((run.name, run.dataset), []).append(run)
    return [
        Entry(
            name,
            dataset,
            {key: _joined([run.categories[key] for run in seeds]) for key in seeds[0].categories},
            _joined([run.mean for run in seeds]),
        )
        for (name, dataset), seeds in models.items()
    ]


def printed_entries(table: int, dataset: str) -> list[Entry]:
    """Return what a table of the paper prints on a data set.

    Raises:
        InputError: If it prints nothing on it.
    """
    methods: dict[str, list[PaperRow]] = {}
    for cell in paper_table(table):
        if cell.dataset == dataset:
            methods.setdefault(cell.method, []).append(cell)
    if not methods:
        raise InputError(
            f"The paper's Table {table} has no figures on {dataset}. Leave --paper out."
        )
    spelling = categories_of(dataset)  # that of its first table; VisA's two differ
    entries = []
    for method, cells in methods.items():
        rows: dict[str, Seeds] = {
            spelling.get(category_key(cell.category), cell.category): {
                key: [x] for key, x in cell.figures.items()
            }
            for cell in cells
        }
        entries.append(Entry(method, dataset, rows, rows.pop(MEAN), is_printed=True))
    return entries


def written(figures: Seeds, metrics: Sequence[str], *, digits: int = 1) -> str:
    """Write figures in one cell as the paper does: a/b/c.

    Several seeds give mean±deviation. An undefined figure is a -, and so is a cell of such.
    """
    texts = [_figure(figures[metric], digits) for metric in metrics]
    return "-" if set(texts) == {"-"} else "/".join(texts)


def _joined(seeds: Sequence[Figures]) -> Seeds:
    return {
        key: [None if (x := figures[key]) is None else 100 * x for figures in seeds]
        for key in seeds[0]
    }


def _figure(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "-"
    spread = f"±{stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}"
