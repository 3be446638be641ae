"""Results as a table for a terminal."""

from rich.table import Table

from omiad.metrics.detection import METRICS, Results

HEADINGS = {
    "image_auroc": "I-AUROC",
    "image_ap": "I-AP",
    "image_f1_max": "I-F1max",
    "pixel_auroc": "P-AUROC",
    "pixel_ap": "P-AP",
    "pixel_f1_max": "P-F1max",
    "aupro": "AU-PRO",
    "mad": "mAD",
}
"""Column of each figure."""


def results_table(results: Results, *, title: str | None = None, steps: str = "") -> Table:
    """Lay out figures in percent, one row for each category and the mean over categories.

    Args:
        results: All figures.
        title: What stands above the table.
        steps: How maps, masks and image scores were prepared, to stand below it.
    """
    captions = [f"{name}: {note}" for name, note in results.notes.items()]
    if results.bounds:
        captions.append(f"pixel figures are exact to {100 * results.bound:.1g} of 100")
    if steps:
        captions.append(steps)
    table = Table(title=title, caption="\n".join(captions) or None, caption_justify="left")
    table.add_column("category (%)")
    for heading in HEADINGS.values():
        table.add_column(heading, justify="right")
    keys = (*METRICS, "mad")
    for name, figures in results.categories.items():
        table.add_row(name, *(_percent(figures[key]) for key in keys))
    table.add_section()
    table.add_row("mean", *(_percent(results.mean[key]) for key in keys), style="bold")
    if results.notes:
        table.add_row("over categories", *(str(results.n[key]) for key in keys), style="dim")
    return table


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
