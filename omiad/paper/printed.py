"""The figures that the paper prints.

Source: Feng et al., OmiAD, ICML 2025, Tables 1 to 15. `tables.csv` holds every cell as printed,
including the paper's mistakes, which tests/unit/paper/test_printed.py lists.
"""

import csv
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from omiad.errors import InputError
from omiad.metrics import METRICS

DATASETS = {"mvtec": "MVTec-AD", "visa": "VisA", "mpdd": "MPDD", "realiad": "Real-IAD"}
"""The paper's name of each data set, by the name in our configurations, in the paper's order."""

MEAN = "mean"
"""The category of a row that averages over all categories of a data set."""

_FIGURES = (*METRICS, "mad", "image_fpr_at_num_anomalous")
_HEADINGS = ("I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AU-PRO", "mAD", "FPR")
HEADINGS = dict(zip(_FIGURES, _HEADINGS, strict=True))
"""Column heading of each metric."""

METRICS_OF_TABLE: dict[int, tuple[str, ...]] = {
    1: _FIGURES[:8],
    2: ("seconds_per_batch_of_64",),
    **dict.fromkeys((3, 13, 14, 15), ("image_auroc", "pixel_auroc")),
    **dict.fromkeys((4, 6, 8, 10), METRICS[:3]),
    **dict.fromkeys((5, 7, 9, 11), METRICS[3:]),
    12: _FIGURES[8:],
}
"""The metrics in each cell of a table, in their order. All but the seconds are in %."""


class PaperRow(NamedTuple):
    """One cell of a table of the paper, as printed.

    The category may be "mean". The method of an ablation is a variant of OmiAD.
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
    """Return the cells of a table, 1 to 15, in the paper's order."""
    if number not in METRICS_OF_TABLE:
        raise InputError(f"The paper's tables are numbered 1 to 15, but got {number}.")
    text = files(__package__).joinpath("tables.csv").read_text(encoding="utf-8")
    _, *cells = csv.reader(text.splitlines())
    return [PaperRow(number, *cell) for table, *cell in cells if table == str(number)]


def categories_of(dataset: str) -> dict[str, str]:
    """Return the paper's names of a data set's categories by `category_key`, in its order."""
    rows = [row for number in (4, 6, 8, 10) for row in paper_table(number)]
    names = [row.category for row in rows if row.dataset == dataset and row.category != MEAN]
    return {category_key(name): name for name in names}


def category_key(name: str) -> str:
    """Reduce a category's name to the part that is the same in the paper and in folder names."""
    return "".join(filter(str.isalnum, name.lower())).removesuffix("s")


def dataset_of(categories: Iterable[str]) -> str | None:
    """Return the paper's data set with exactly these categories, or None."""
    keys = sorted(map(category_key, categories))
    return next((name for name in DATASETS.values() if keys == sorted(categories_of(name))), None)
