"""The tables of a page: what was run, and figures beside the paper's."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from omiad.data.layouts.published import recognise
from omiad.metrics import METRICS
from omiad.paper import MEAN, category_key, dataset_of, paper_table
from omiad.report.runs import TestedRun

HEADINGS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1_max": "pixel F1-max",
    "aupro": "AU-PRO",
    "mad": "mAD",
}
"""Column of each figure."""

_PAPER_TABLES = {
    "mvtec": ("MVTec-AD", (1, 4, 5)),
    "visa": ("VisA", (1, 6, 7)),
    "mpdd": ("MPDD", (1, 8, 9)),
    "realiad": ("Real-IAD", (1, 10, 11)),
}


_MADE_HERE = ("OmiAD", "AMDM")
"""Methods of the paper that this code makes."""


class Row(NamedTuple):
    """Figures of one method on one category.

    Attributes:
        category: Its name, or "mean".
        method: The run, or the method of the paper.
        figures: In %, None where one is undefined.
        intervals: Low and high in %, of those that have one.
        is_papers: Whether the paper printed the figures.
    """

    category: str
    method: str
    figures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    is_papers: bool

    @property
    def is_shown(self) -> bool:
        """Whether it is shown at first: of the paper's methods, those that the code makes."""
        return not self.is_papers or self.method in _MADE_HERE


def rows_of(run: TestedRun) -> list[Row]:
    """Return the figures of a run, its mean first."""
    intervals: Mapping[str, Any] = run.record.get("intervals") or {}
    of_category: Mapping[str, Any] = intervals.get("categories", {})
    figures = {MEAN: run.record["mean"], **run.record["categories"]}
    ranges = {MEAN: intervals.get("mean", {}), **of_category}
    return [
        Row(
            category,
            run.name,
            {key: None if row.get(key) is None else 100 * row[key] for key in HEADINGS},
            {
                key: (100 * low, 100 * high)
                for key, (low, high) in ranges.get(category, {}).items()
                if key in HEADINGS
            },
            is_papers=False,
        )
        for category, row in figures.items()
    ]


def paper_rows(categories: Sequence[str]) -> list[Row]:
    """Return what the paper prints of a data set that it has, under our names of categories.

    Its means are over all categories: they are left out where we have but some of them.
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
        for cell in paper_table(number):
            name = ours.get(category_key(cell.category))
            # Some means are printed twice, and not alike: those of Table 1 come first.
            if cell.dataset == title and name is not None:
                row = found.setdefault((name, cell.method), {})
                row |= {key: value for key, value in cell.figures.items() if key not in row}
    return [
        Row(category, method, {key: row.get(key) for key in HEADINGS}, {}, is_papers=True)
        for (category, method), row in found.items()
    ]


def num_steps(record: Mapping[str, Any]) -> str:
    """Say how many steps a model takes."""
    count = record.get("model", {}).get("num_steps", "unknown number of")
    return "one step" if count == 1 else f"{count} steps"


def figures_table(rows: Sequence[Row], *, caption: str, with_category: bool) -> str:
    """Return a table that page.js sorts, the best figure of those shown at first in bold.

    Args:
        rows: What it holds, in this order.
        caption: What it shows.
        with_category: Whether the first column is the category.
    """
    best = _best(rows)
    heads = ["category", "method"] if with_category else ["method"]
    columns = [*heads, *HEADINGS.values()]
    head = "".join(
        f'<th scope="col"{"" if name in heads else " class=number"}>'
        f'<button type="button" class="sort">{name}</button></th>'
        for name in columns
    )
    lines = [_line(row, best, with_category=with_category) for row in rows]
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="figures sortable"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _best(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    best: dict[tuple[str, str], float] = {}
    for row in filter(lambda row: row.is_shown, rows):
        for key, value in row.figures.items():
            if value is not None:
                place = row.category, key
                best[place] = max(round(value, 1), best.get(place, 0.0))
    return best


def _line(row: Row, best: Mapping[tuple[str, str], float], *, with_category: bool) -> str:
    badge = ' <span class="badge">paper</span>' if row.is_papers else ""
    method = f"{escape(row.method)}{badge}"
    head = (
        f'<th scope="row">{escape(row.category)}</th><td>{method}</td>'
        if with_category
        else f'<th scope="row">{method}</th>'
    )
    cells = []
    for key in HEADINGS:
        value = row.figures[key]
        if value is None:
            cells.append('<td class="number none" data-value="">-</td>')
            continue
        shown = f"{value:.1f}"
        if row.is_shown and round(value, 1) == best[row.category, key]:
            shown = f"<b>{shown}</b>"
        if key in row.intervals and not with_category:
            low, high = row.intervals[key]
            shown += f'<small class="range">{low:.1f} to {high:.1f}</small>'
        cells.append(
            f'<td class="number" data-value="{value:.4f}" style="--part:{value:.1f}%">{shown}</td>'
        )
    kind = " class=paper" if row.is_papers else ""
    return (
        f'<tr{kind} data-method="{escape(row.method)}" data-papers="{int(row.is_papers)}" '
        f'data-shown="{int(row.is_shown)}">'
        f"{head}{''.join(cells)}</tr>"
    )


def side_by_side(teacher: TestedRun, student: TestedRun) -> str:
    """Return the teacher's and the student's means, their difference, and the time of each."""
    means = [run.record["mean"] for run in (teacher, student)]
    lines = []
    for key in (*METRICS, "mad"):
        before, after = (mean.get(key) for mean in means)
        if before is None or after is None:
            continue
        lines.append(
            f'<tr><th scope="row">{HEADINGS[key]}</th><td class="number">{100 * before:.1f}</td>'
            f'<td class="number">{100 * after:.1f}</td>'
            f'<td class="number">{round(100 * (after - before), 1) + 0.0:+.1f}</td></tr>'
        )
    caption = "Means over categories in %."
    slow, fast = (run.record.get("latency") or {} for run in (teacher, student))
    if slow and fast:
        before, after = slow["ms_per_image"], fast["ms_per_image"]
        alike = (
            teacher.record.get("hardware") == student.record.get("hardware")
            and slow["batch_size"] == fast["batch_size"]
        )
        ratio = f"{before / after:.2f} times as fast" if alike else "measured differently"
        lines.append(
            f'<tr><th scope="row">ms per image</th><td class="number">{before:.1f}</td>'
            f'<td class="number">{after:.1f}</td><td class="number">{ratio}</td></tr>'
        )
        caption += (
            " The times are medians of two runs apart, so that other work on the machine shows in "
            "them."
        )
    steps = [escape(num_steps(run.record)) for run in (teacher, student)]
    both = escape(f"{teacher.name} and {student.name}")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Teacher and student: {both}">'
        f"<table><caption>{caption}</caption>"
        f'<thead><tr><td></td><th scope="col" class="number">{escape(teacher.name)} (teacher), '
        f'{steps[0]}</th><th scope="col" class="number">{escape(student.name)} (student), '
        f'{steps[1]}</th><th scope="col" class="number">difference</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
