"""Figures of one's own beside the paper's, on the terminal and as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from omiad.report.markup import Grid, as_markdown

HEADINGS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1_max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1_max": "P-F1max",
    "aupro": "AU-PRO",
    "mad": "mAD",
    "image_fpr_at_num_anomalous": "FPR",
}
"""Column of each figure."""


class Beside(NamedTuple):
    """A row of a table.

    Attributes:
        name: What the row is about.
        figures: One's own in %, None where undefined or not measured.
        paper: The paper's in % by its data set, empty where it has none.
        note: What else is to be said, e.g. how long training took.
    """

    name: str
    figures: dict[str, float | None]
    paper: dict[str, dict[str, float]]
    note: str = ""


def own_figures(results: dict[str, Any], metrics: Sequence[str]) -> dict[str, float | None]:
    """Pick means over categories from a results.json, in %."""
    mean = results["mean"] | results["further"]["mean"]
    return {m: None if mean[m] is None else 100 * mean[m] for m in metrics}


def write_table(path: Path, title: str, rows: Sequence[Beside], metrics: Sequence[str]) -> None:
    """Print a table and write it as Markdown, the paper's figures below each row of one's own.

    Args:
        path: The Markdown file.
        title: What stands above it.
        rows: One after the other.
        metrics: Which figures.
    """
    headings = ["", *(HEADINGS[m] for m in metrics), "note"]
    lines = []
    for row in rows:
        lines.append([row.name, *(_cell(row.figures[m]) for m in metrics), row.note])
        for dataset, figures in row.paper.items():
            cells = (_cell(figures.get(m)) for m in metrics)
            lines.append([f"paper, {dataset}", *cells, ""])
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading)
    for line in lines:
        table.add_row(*line, style="dim" if line[0].startswith("paper, ") else None)
    Console().print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_markdown(Grid(title, headings, lines)))


def _cell(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.1f}"
