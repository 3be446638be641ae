"""The figures that the paper prints, as printed, to stand beside one's own.

Source: Feng et al., OmiAD, ICML 2025, Tables 1 to 15. `tables.csv` holds every cell as it is
printed, mistakes included; tests/unit/test_paper.py lists those found.
"""

import csv
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from omiad.errors import InputError

MEAN = "mean"
"""The category of a row over all categories of a data set."""

_IMAGE = ("image_auroc", "image_ap", "image_f1_max")
_PIXEL = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
_AUROC = ("image_auroc", "pixel_auroc")
METRICS_OF_TABLE: dict[int, tuple[str, ...]] = {
    1: (*_IMAGE, *_PIXEL, "mad"),
    2: ("seconds_per_batch_of_64",),
    3: _AUROC,
    **dict.fromkeys((4, 6, 8, 10), _IMAGE),
    **dict.fromkeys((5, 7, 9, 11), _PIXEL),
    12: ("image_fpr_at_num_anomalous",),
    **dict.fromkeys((13, 14, 15), _AUROC),
}
"""What the numbers of a cell are, in their order; all but seconds in %."""


_CATEGORIES_OF = {"MVTec-AD": 4, "VisA": 6, "MPDD": 8, "Real-IAD": 10}
"""A table with the categories of each data set; the next one has their pixel figures."""


class PaperRow(NamedTuple):
    """One cell of a table of the paper.

    Attributes:
        table: Number of the table.
        dataset: Name of the data set.
        category: Name of the category, or "mean".
        method: Name of the method, or of the variant in an ablation.
        printed: The cell as it is printed.
    """

    table: int
    dataset: str
    category: str
    method: str
    printed: str

    @property
    def figures(self) -> dict[str, float]:
        """The numbers by metric, as printed: in %, or in seconds in Table 2."""
        values = map(float, self.printed.split("/"))
        return dict(zip(METRICS_OF_TABLE[self.table], values, strict=True))


@cache
def paper_table(number: int) -> Sequence[PaperRow]:
    """Return the cells of a table in the paper's order.

    Args:
        number: 1 to 15.

    Raises:
        InputError: If the paper has no such table.
    """
    if number not in METRICS_OF_TABLE:
        raise InputError(f"The paper's tables are numbered 1 to 15, but got {number}.")
    text = files(__package__).joinpath("tables.csv").read_text(encoding="utf-8")
    cells = csv.DictReader(text.splitlines())
    rows = [PaperRow(int(row.pop("table")), **row) for row in cells]
    return [row for row in rows if row.table == number]


def categories_of(dataset: str) -> dict[str, str]:
    """Return the categories of one of the paper's data sets, in its order.

    Returns:
        Names as the paper prints them, by `category_key`.
    """
    rows = paper_table(_CATEGORIES_OF[dataset])
    return {category_key(row.category): row.category for row in rows if row.category != MEAN}


def category_key(name: str) -> str:
    """Reduce a name to what the paper and the folders of a data set spell alike."""
    return "".join(filter(str.isalnum, name.lower())).removesuffix("s")


def dataset_of(categories: Iterable[str]) -> str | None:
    """Return which of the paper's data sets has just these categories, None if none has."""
    keys = {category_key(name) for name in categories}
    return next((name for name in _CATEGORIES_OF if keys == categories_of(name).keys()), None)
