"""The figures of one model on one data set, measured or printed in the paper."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omiad.errors import InputError
from omiad.paper.printed import MEAN, categories_of, category_key, dataset_of, paper_table
from omiad.record import read_results


@dataclass(frozen=True)
class Entry:
    """One run of a model on a data set, or a method in a table of the paper, which has no path.

    Runs of the same name on a data set are seeds of one model. The data set has the paper's name if
    it is one of the paper's. The rows hold the figures of each category in %, None if undefined;
    the row None holds their mean.
    """

    name: str
    dataset: str
    rows: Mapping[str | None, Mapping[str, float | None]]
    path: Path | None = None
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name, marked if the paper prints the figures."""
        return self.name if self.path else f"{self.name} (paper)"

    @property
    def published(self) -> str | None:
        """The paper's data set that has these categories, or None."""
        return dataset_of(name for name in self.rows if name is not None)


def read_entry(path: Path, name: str = "") -> Entry:
    """Read a results.json. On the paper's data sets, categories have its spelling and order.

    Without a name, the model is named after its kind, and another method after its maps' folder.
    """
    record = read_results(path)
    if not name:
        kind = record["model"].get("kind", "maps")
        name = path.resolve().parent.name if kind == "maps" else str(kind)
    own, further = record["categories"], record["further"]["categories"]
    spelling = {category: category for category in own}
    if published := dataset_of(own):
        by_key = {category_key(category): category for category in own}
        spelling = {shown: by_key[key] for key, shown in categories_of(published).items()}
    rows = {shown: own[category] | further[category] for shown, category in spelling.items()}
    rows |= {None: record["mean"] | record["further"]["mean"]}
    in_percent = {
        category: {metric: None if x is None else 100 * x for metric, x in row.items()}
        for category, row in rows.items()
    }
    return Entry(name, published or str(record["dataset"]), in_percent, path, record)


def printed_entries(table: int, dataset: str | None) -> list[Entry]:
    """Return the methods that a table of the paper lists on a data set."""
    cells = [cell for cell in paper_table(table) if cell.dataset == dataset]
    if dataset is None or not cells:
        on = dataset or "this data set"
        raise InputError(f"The paper's Table {table} has no figures on {on}. Leave --paper out.")
    # The two tables on VisA spell its categories differently.
    spelling = {**categories_of(dataset), MEAN: None}
    methods = defaultdict[str, dict[str | None, dict[str, float]]](dict)
    for cell in cells:
        methods[cell.method][spelling[category_key(cell.category)]] = cell.figures
    return [Entry(method, dataset, rows) for method, rows in methods.items()]
