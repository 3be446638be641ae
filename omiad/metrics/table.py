"""Results as a table that fits into a terminal of 80 columns."""

from decimal import ROUND_CEILING, Context

from rich import box
from rich.table import Table

from omiad.metrics.detection import METRICS, PIXEL_METRICS, Results

COLUMNS = {
    "image_auroc": "image\nAUROC",
    "image_ap": "image\nAP",
    "image_f1_max": "image\nF1max",
    "pixel_auroc": "pixel\nAUROC",
    "pixel_ap": "pixel\nAP",
    "pixel_f1_max": "pixel\nF1max",
    "aupro": "AU-\nPRO",
    "mad": "mAD",
}
"""Column of each figure in a terminal."""


def results_table(results: Results, *, title: str | None = None, steps: str = "") -> Table:
    """Lay out figures in percent, one row for each category and the mean over categories.

    Args:
        results: All figures.
        title: Title of the table.
        steps: How maps, masks and image scores were prepared, printed below the table.
    """
    captions = [f"{name}: {note}" for name, note in results.notes.items()]
    captions += _exactness(results)
    if steps:
        captions.append(steps)
    table = figures_table(title=title, caption="\n".join(captions) or None)
    keys = (*METRICS, "mad")
    for name, figures in results.categories.items():
        table.add_row(name, *(_percent(figures[key]) for key in keys))
    table.add_section()
    table.add_row("mean", *(_percent(results.mean[key]) for key in keys), style="bold")
    if results.notes:
        table.add_row("over categories", *(str(results.n[key]) for key in keys), style="dim")
    return table


def figures_table(*, title: str | None = None, caption: str | None = None) -> Table:
    """Return an empty table with a column for the category and one for each figure.

    A long name is folded, so that no figure is cut.
    """
    table = Table(title=title, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("category (%)", overflow="fold")
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _exactness(results: Results) -> list[str]:
    """Say which pixel figures are estimates, and how large the error of the others may be."""
    bounded = {name for row in results.bounds.values() for name in row}
    estimated = [
        name for name in PIXEL_METRICS if results.mean[name] is not None and name not in bounded
    ]
    sentences = []
    if estimated:
        sentences.append(f"estimated as the protocol's source does: {', '.join(estimated)}")
    if bounded:
        bound = Context(prec=1, rounding=ROUND_CEILING).create_decimal_from_float(
            100 * results.bound
        )
        which = "other pixel figures" if estimated else "pixel figures"
        sentences.append(f"{which} are exact to {float(bound):g} of 100")
    return sentences


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
