"""Results as a table that fits into a terminal of 80 columns."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Context

from rich import box
from rich.table import Table
from rich.text import Text

from omiad.metrics.detection import PIXEL_METRICS, Results
from omiad.metrics.ranking import Figures
from omiad.names import one_line, printable

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
"""Heading of each figure."""


def results_table(results: Results, *, title: str | None = None, steps: str = "") -> Table:
    """Lay out figures in percent, one row for each category and the mean over categories.

    `steps` says below the table how maps, masks and image scores were prepared.
    """
    captions = [f"{one_line(name)}: {note}" for name, note in results.notes.items()]
    bounded = {name for row in results.bounds.values() for name in row}
    estimated = [
        name for name in PIXEL_METRICS if name not in bounded and results.mean[name] is not None
    ]
    if estimated:
        captions.append(f"estimated as the protocol's source does: {', '.join(estimated)}")
    if bounded:
        percent = Context(prec=1, rounding=ROUND_CEILING).create_decimal(100 * results.bound)
        others = "other " if estimated else ""
        captions.append(f"{others}pixel figures are exact to {float(percent):g} of 100")
    figures = dict[str | None, Figures](results.categories.items()) | {None: results.mean}
    rows = {
        name: ["-" if (value := row[key]) is None else f"{100 * value:.1f}" for key in HEADINGS]
        for name, row in figures.items()
    }
    caption = "\n".join([*captions, steps] if steps else captions)
    table = figures_table(rows, title=title, caption=caption or None)
    table.rows[-1].style = "bold"
    if results.notes:
        table.add_row("over categories", *(str(results.n[key]) for key in HEADINGS), style="dim")
    return table


def figures_table(
    rows: Mapping[str | None, Sequence[str | Text]],
    *,
    title: str | None = None,
    caption: str | None = None,
) -> Table:
    """Return a table of texts by `HEADINGS`: one row for each category, and of None for the mean.

    A long name is folded, so that no figure is cut. Names are shown as they are: [new] is no
    markup, and a control character is escaped. The cells of figures may have markup.
    """
    above, below = (None if text is None else Text(printable(text)) for text in (title, caption))
    table = Table(title=above, caption=below, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("category (%)", overflow="fold")
    for heading in HEADINGS.values():
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for name, cells in rows.items():
        if name is None:
            table.add_section()
        table.add_row("mean" if name is None else Text(one_line(name)), *cells)
    return table
