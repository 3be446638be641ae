"""What the thresholds of products can be relied on for, as a table."""

from rich import box
from rich.table import Table

from omiad.conformal import CONFIDENCE, rate_bound, smallest_rate
from omiad.names import one_line
from omiad.products import Products

_HEADINGS = ("normals", "stated", "lowest", "relied on", "threshold")


def guarantee_table(products: Products, asked: float | None) -> Table:
    """Lay out the threshold of each product, and the false-alarm rate that it stands for.

    Args:
        products: The products of a detector.
        asked: The rate of false alarms that the detector is set to; None for the lowest rates.

    Raises:
        InputError: If the photographs of a product do not support the rate.
    """
    caption = (
        f"normals: photographs that set the threshold. stated: the share of new normal photographs "
        f"that is called defective, on average over calibrations. lowest: the lowest share that so "
        f"many normals support. relied on: with a probability of {100 * CONFIDENCE:g} % this "
        f"calibration calls no larger share defective. All hold for photographs that are taken "
        f"like the normals."
    )
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    table.add_column("product", overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right")
    columns = zip(products.names, products.rates(asked), products.thresholds(asked), strict=True)
    for (name, rate, threshold), number in zip(columns, products.counts.tolist(), strict=True):
        rates = (rate, smallest_rate(number), rate_bound(number, rate))
        stated, lowest, bound = (f"{100 * each:.2g} %" for each in rates)
        table.add_row(one_line(name), str(number), stated, lowest, bound, f"{threshold.image:.4g}")
    return table
