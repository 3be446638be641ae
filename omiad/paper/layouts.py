"""The layouts of the paper's tables."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import mean, stdev

from omiad.errors import InputError
from omiad.paper.entries import Entry
from omiad.paper.markup import TEMPLATES, printable, render
from omiad.paper.printed import DATASETS, HEADINGS, METRICS_OF_TABLE
from omiad.record import measure

PARTS = ("DDPM", "F-Mask", "A-Mask", "ADD", "Distill", "Adv. D.")
"""The parts of a model in Table 3, whose row names join them by " + "."""

_LABELS = {1: ("Dataset", "Method"), 3: PARTS}
_LABELS |= {12: ("Dataset",), 13: ("t_init",), 14: ("Model",), 15: ("Backbone",)}
_Cells = dict[tuple[tuple[str | None, ...], str], str]
"""The text of each cell, by the labels of its row and the heading of its column."""


def lay_out(table: int, entries: Sequence[Entry], markup: str, note: str = "") -> str:
    """Write table 1, or 3 to 15, as the paper lays it out, with the note at the end of its title.

    The entries are the paper's figures, if any, before our own.
    """
    order = [*DATASETS.values(), *sorted({entry.dataset for entry in entries})]
    models = defaultdict[tuple[str, str], list[Entry]](list)
    for entry in sorted(entries, key=lambda entry: order.index(entry.dataset)):
        models[entry.title, entry.dataset].append(entry)
    cells: _Cells = {}
    for seeds in models.values():
        cells |= _cells(table, seeds)
    columns = dict.fromkeys(column for _, column in cells)
    rows = {
        row: ["Mean" if label is None else label for label in row]
        + [cells.get((row, column), "-") for column in columns]
        for row, _ in cells
    }
    # The data sets of Table 1 are set apart, and elsewhere the mean over categories.
    sections = groupby(rows, lambda row: row[0] if table == 1 else row == (None,))
    labels = _LABELS.get(table, ("Category",))
    return render(
        markup,
        _title(table, list(models.values()), note),
        [*labels, *columns],
        [[rows[row] for row in section] for _, section in sections],
        num_labels=len(labels) if table != 3 else 0,
    )


def _cells(table: int, seeds: Sequence[Entry]) -> _Cells:
    """Return the cells that a model fills."""
    model, metrics = seeds[0], METRICS_OF_TABLE[table]
    of_paper = "" if model.path else " (paper)"
    match table:
        case 1:
            row = (model.dataset, model.title)
            return {(row, HEADINGS[each]): _cell(seeds, None, [each]) for each in metrics}
        case 3:
            parts = model.name.split(" + ")
            if not set(parts) <= set(PARTS):
                raise InputError(
                    f"'{printable(model.name)}' is not a row of Table 3. Name it by its parts, "
                    f"which are {', '.join(PARTS)}, e.g. 'DDPM + A-Mask=PATH'."
                )
            checks = tuple("✓" if part in parts else "-" for part in PARTS)
            return {(checks, f"Results{of_paper}"): _cell(seeds, None, metrics)}
        case 12:  # the only table with two decimals in the paper
            return {((model.dataset,), model.title): _cell(seeds, None, metrics, digits=2)}
        case 13 | 14 | 15:
            name = model.name.removeprefix("t_init ")
            rows = zip(("Image AUROC", "Pixel AUROC"), metrics, strict=True)
            return {((row + of_paper,), name): _cell(seeds, None, [each]) for row, each in rows}
        case _:
            return {((row,), model.title): _cell(seeds, row, metrics) for row in model.rows}


def _cell(
    seeds: Sequence[Entry], category: str | None, metrics: Sequence[str], digits: int = 1
) -> str:
    """Write figures as the paper does, a/b/c, with ±standard deviation over several seeds.

    An undefined or missing figure is "-", and so is a cell in which no figure is defined.
    """
    texts = []
    for metric in metrics:
        values = [seed.rows[category].get(metric) for seed in seeds]
        known = [value for value in values if value is not None]
        spread = f"±{stdev(known):.{digits}f}" if len(known) > 1 else ""
        texts.append("-" if len(known) < len(values) else f"{mean(known):.{digits}f}{spread}")
    return "-" if set(texts) == {"-"} else "/".join(texts)


def _title(table: int, models: Sequence[Sequence[Entry]], note: str) -> str:
    """Return a note: what the figures are, how they were measured, and how many runs there are."""
    metrics = METRICS_OF_TABLE[table]
    own = [seeds for seeds in models if seeds[0].path]
    # All models on a data set have the same categories; the last model is our own.
    last = {seeds[0].dataset: seeds for seeds in models}.values()
    return TEMPLATES.get_template("title.jinja").render(
        **measure(own[0][0].record),
        table=table,
        headings=[HEADINGS[metric] for metric in metrics],
        own=own,
        partial_means=[text for seeds in last for text in _partial_means(seeds, metrics)],
        printed=dict.fromkeys(seeds[0].dataset for seeds in models if not seeds[0].path),
        note=note,
    )


def _partial_means(seeds: Sequence[Entry], metrics: Sequence[str]) -> Iterator[str]:
    """Return a note on means over fewer categories than the data set has."""
    categories = [category for category in seeds[0].rows if category is not None]
    by_count = defaultdict[int, list[str]](list)
    for metric in metrics:
        columns = [[seed.rows[category].get(metric) for seed in seeds] for category in categories]
        by_count[sum(None not in column for column in columns)].append(HEADINGS[metric])
    for count, headings in by_count.items():
        if count < len(categories):
            means = f"{seeds[0].dataset}: {', '.join(headings)}"
            yield f"{means} over {count} of {len(categories)} categories"
