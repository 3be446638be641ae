"""The figures of one model on one data set, measured or printed in the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omiad.errors import InputError
from omiad.paper.printed import MEAN, categories_of, category_key, dataset_of, paper_table
from omiad.results import read_results


@dataclass(frozen=True)
class Entry:
    """One run of a model on a data set, or a method in a table of the paper.

    Attributes:
        name: Name of the model. Runs of the same name on a data set are seeds of one model.
        dataset: The paper's name of the data set, or else the user's.
        rows: Figures by category, in % and None if undefined. The key None is their mean.
        path: The results.json, or None if the paper prints the figures.
        record: Content of the results.json.
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

    Raises:
        InputError: If the file holds no results of this version.
    """
    record = read_results(path)
    if "further" not in record:
        raise InputError(f"'{path}' comes from another version of omiad. Test again.")
    if not name:
        kind = record.get("model", {}).get("kind", "maps")
        name = path.resolve().parent.name if kind == "maps" else str(kind)
    own, further = record["categories"], record["further"]["categories"]
    spelling = {category: category for category in own}
    if published := dataset_of(own):
        by_key = {category_key(category): category for category in own}
        spelling = {shown: by_key[key] for key, shown in categories_of(published).items()}
    rows: dict[str | None, dict[str, float | None]] = {
        shown: _in_percent(own[category] | further[category])
        for shown, category in spelling.items()
    }
    rows[None] = _in_percent(record["mean"] | record["further"]["mean"])
    return Entry(name, published or str(record["dataset"]), rows, path, record)


def printed_entries(table: int, dataset: str | None) -> list[Entry]:
    """Return the methods that a table of the paper lists on a data set.

    Raises:
        InputError: If the table does not cover the data set.
    """
    cells = [cell for cell in paper_table(table) if cell.dataset == dataset]
    if dataset is None or not cells:
        raise InputError(
            f"The paper's Table {table} has no figures on {dataset or 'this data set'}. Leave "
            f"--paper out."
        )
    # The two tables on VisA spell its categories differently.
    spelling: dict[str, str | None] = {**categories_of(dataset), MEAN: None}
    methods: dict[str, dict[str | None, dict[str, float]]] = {}
    for cell in cells:
        rows = methods.setdefault(cell.method, {})
        rows[spelling[category_key(cell.category)]] = cell.figures
    return [Entry(method, dataset, rows) for method, rows in methods.items()]


def _in_percent(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    return {metric: None if x is None else 100 * x for metric, x in figures.items()}
