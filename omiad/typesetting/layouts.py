"""The layouts of the paper's tables."""

from collections.abc import Sequence
from itertools import groupby

from omiad.errors import InputError
from omiad.paper import METRICS_OF_TABLE
from omiad.report.markup import Grid, printable
from omiad.sweeps.tables import HEADINGS
from omiad.typesetting.entries import Entry, written

PARTS = ("DDPM", "F-Mask", "A-Mask", "ADD", "Distill", "Adv. D.")
"""What a row of Table 3 may be made of; its name joins them by " + "."""

_FIRST_CELL = {13: "t_init", 14: "Model", 15: "Backbone"}
_ROWS = {"image_auroc": "Image AUROC", "pixel_auroc": "Pixel AUROC"}


def lay_out(table: int, entries: Sequence[Entry], *, title: str) -> Grid:
    """Lay a table out.

    Args:
        table: Its number: 1, or 3 to 15.
        entries: What stands in it, grouped by data set; one alone but in Tables 1 and 12.
        title: What is to be said above it.
    """
    if table in (1, 3, 12):
        return {1: _summary, 3: _parts, 12: _rates}[table](entries, title)
    return (_variants if table in _FIRST_CELL else _categories)(table, entries, title)


def _summary(entries: Sequence[Entry], title: str) -> Grid:
    metrics = METRICS_OF_TABLE[1]
    rows: list[list[str]] = []
    rules = set()
    for dataset, group in groupby(entries, lambda entry: entry.dataset):
        rules.add(len(rows))
        for entry in group:
            figures = [written(entry.mean, [metric]) for metric in metrics]
            rows.append([printable(dataset), entry.title, *figures])
    header = ["Dataset", "Method", *(HEADINGS[metric] for metric in metrics)]
    return Grid(title, header, rows, num_labels=2, rules=rules - {0})


def _categories(table: int, entries: Sequence[Entry], title: str) -> Grid:
    metrics = METRICS_OF_TABLE[table]
    rows = [
        [printable(name), *(written(entry.categories[name], metrics) for entry in entries)]
        for name in entries[0].categories
    ]
    rows.append(["Mean", *(written(entry.mean, metrics) for entry in entries)])
    header = ["Category", *(entry.title for entry in entries)]
    return Grid(title, header, rows, rules={len(rows) - 1})


def _rates(entries: Sequence[Entry], title: str) -> Grid:
    # The paper prints two decimals in this table alone.
    found = {(e.title, e.dataset): written(e.mean, METRICS_OF_TABLE[12], digits=2) for e in entries}
    methods = list(dict.fromkeys(entry.title for entry in entries))
    rows = [
        [printable(dataset), *(found.get((method, dataset), "-") for method in methods)]
        for dataset in dict.fromkeys(entry.dataset for entry in entries)
    ]
    return Grid(title, ["Dataset", *methods], rows)


def _parts(entries: Sequence[Entry], title: str) -> Grid:
    whose = {"Results (paper)": True, "Results": False}
    if not any(entry.is_printed for entry in entries):
        del whose["Results (paper)"]
    found = {(e.name, e.is_printed): written(e.mean, METRICS_OF_TABLE[3]) for e in entries}
    rows = []
    for name in dict.fromkeys(entry.name for entry in entries):
        parts = name.split(" + ")
        if not set(parts) <= set(PARTS):
            raise InputError(
                f"'{printable(name)}' is no row of Table 3, whose rows are made of "
                f"{', '.join(PARTS)}. Name it by them, e.g. 'DDPM + A-Mask=PATH'."
            )
        checks = ["✓" if part in parts else "-" for part in PARTS]
        rows.append([*checks, *(found.get((name, printed), "-") for printed in whose.values())])
    return Grid(title, [*PARTS, *whose], rows, num_labels=0)


def _variants(table: int, entries: Sequence[Entry], title: str) -> Grid:
    found = {(e.name, e.is_printed): e.mean for e in entries}
    variants = list(dict.fromkeys(entry.name for entry in entries))
    rows = []
    for is_printed in sorted({entry.is_printed for entry in entries}, reverse=True):
        for metric in METRICS_OF_TABLE[table]:
            figures = [
                written(found[key], [metric]) if (key := (name, is_printed)) in found else "-"
                for name in variants
            ]
            rows.append([_ROWS[metric] + " (paper)" * is_printed, *figures])
    names = [printable(name).removeprefix("t_init ") for name in variants]
    return Grid(title, [_FIRST_CELL[table], *names], rows)
