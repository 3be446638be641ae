"""The layouts of the paper's tables."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import mean, stdev

from omiad.errors import InputError
from omiad.paper.entries import Entry
from omiad.paper.markup import printable, render
from omiad.paper.printed import DATASETS, HEADINGS, METRICS_OF_TABLE
from omiad.results import measure

PARTS = ("DDPM", "F-Mask", "A-Mask", "ADD", "Distill", "Adv. D.")
"""The parts of a model in Table 3, whose row names join them by " + "."""

_LABELS = {1: ("Dataset", "Method"), 3: PARTS, 12: ("Dataset",)}
_LABELS |= {13: ("t_init",), 14: ("Model",), 15: ("Backbone",)}
_ROWS = {"image_auroc": "Image AUROC", "pixel_auroc": "Pixel AUROC"}


def lay_out(table: int, entries: Sequence[Entry], markup: str, note: str = "") -> str:
    """Write a table as the paper lays it out, with a title that says how it was measured.

    Args:
        table: Number of the table: 1, or 3 to 15.
        entries: The figures, the paper's before our own.
        markup: Ending of the file: .csv, .md or .tex.
        note: A remark for the title.

    Raises:
        InputError: If a model's name is not a row of Table 3.
    """
    order = [*DATASETS.values(), *sorted({entry.dataset for entry in entries})]
    models = defaultdict[tuple[str, str], list[Entry]](list)
    for entry in sorted(entries, key=lambda entry: order.index(entry.dataset)):
        models[entry.title, entry.dataset].append(entry)
    # From the labels of a row and the heading of a column to the cell there.
    cells = {(row, column): cell for s in models.values() for row, column, cell in _cells(table, s)}
    columns = dict.fromkeys(column for _, column in cells)
    keys = list(dict.fromkeys(row for row, _ in cells))
    rows = [
        [
            *("Mean" if label is None else printable(label) for label in key),
            *(cells.get((key, column), "-") for column in columns),
        ]
        for key in keys
    ]
    rules = [i for i, key in enumerate(keys) if key == (None,)]
    if table == 1:
        rules = [i for i in range(1, len(keys)) if keys[i][0] != keys[i - 1][0]]
    labels = _LABELS.get(table, ("Category",))
    return render(
        markup,
        _title(table, list(models.values()), note),
        [*labels, *map(printable, columns)],
        rows,
        num_labels=len(labels) if table != 3 else 0,
        rules=rules,
    )


def _cells(table: int, seeds: Sequence[Entry]) -> Iterator[tuple[tuple[str | None, ...], str, str]]:
    """Yield the cells of a model: the labels of its row, the heading of its column, its text."""
    model, metrics = seeds[0], METRICS_OF_TABLE[table]
    of_paper = "" if model.path else " (paper)"
    match table:
        case 1:
            for metric in metrics:
                row = (model.dataset, model.title)
                yield row, HEADINGS[metric], _cell(seeds, None, [metric])
        case 3:
            yield _checked(model.name), f"Results{of_paper}", _cell(seeds, None, metrics)
        case 12:  # the only table with two decimals in the paper
            yield (model.dataset,), model.title, _cell(seeds, None, metrics, digits=2)
        case 13 | 14 | 15:
            name = model.name.removeprefix("t_init ")
            for metric in metrics:
                yield (f"{_ROWS[metric]}{of_paper}",), name, _cell(seeds, None, [metric])
        case _:
            for category in model.rows:
                yield (category,), model.title, _cell(seeds, category, metrics)


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


def _checked(name: str) -> tuple[str, ...]:
    parts = name.split(" + ")
    if not set(parts) <= set(PARTS):
        raise InputError(
            f"'{printable(name)}' is not a row of Table 3. Name it by its parts, which are "
            f"{', '.join(PARTS)}, e.g. 'DDPM + A-Mask=PATH'."
        )
    return tuple("✓" if part in parts else "-" for part in PARTS)


def _title(table: int, models: Sequence[Sequence[Entry]], note: str) -> str:
    """Say what the figures are, how they were measured, and from how many runs."""
    metrics = METRICS_OF_TABLE[table]
    measured = measure(next(seeds[0].record for seeds in models if seeds[0].path))
    changes = [f"{key} {value}" for key, value in measured["protocol_changes"].items()]
    sentences = [
        f"Table {table}, {'/'.join(HEADINGS[metric] for metric in metrics)} in %",
        ", ".join([f"protocol {measured['protocol']}", *changes]),
    ]
    if measured["estimator"] != "exact":
        sentences.append("pixel figures as the protocol's source estimates them")
    if any(len(seeds) > 1 for seeds in models):
        counts = [f"{seeds[0].title} {len(seeds)}" for seeds in models if seeds[0].path]
        sentences.append(f"mean±standard deviation over runs: {', '.join(counts)}")
    # All models on a data set have the same categories; the last model is our own.
    for seeds in {seeds[0].dataset: seeds for seeds in models}.values():
        sentences += _undefined(seeds, metrics)
    if printed := dict.fromkeys(seeds[0].dataset for seeds in models if not seeds[0].path):
        sentences.append(f"(paper) marks the paper's figures on {', '.join(printed)}")
    return "; ".join(printable(s) for s in [*sentences, note] if s) + "."


def _undefined(seeds: Sequence[Entry], metrics: Sequence[str]) -> Iterator[str]:
    """Say which means are over fewer categories than the data set has."""
    categories = [category for category in seeds[0].rows if category is not None]
    by_count = defaultdict[int, list[str]](list)
    for metric in metrics:
        columns = [[seed.rows[category].get(metric) for seed in seeds] for category in categories]
        by_count[sum(None not in column for column in columns)].append(HEADINGS[metric])
    for count, names in by_count.items():
        if count < len(categories):
            of = f"{count} of {len(categories)} categories"
            yield f"{seeds[0].dataset}: {', '.join(names)} over {of}"
