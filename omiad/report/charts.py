"""Charts as inline SVG by matplotlib; runs differ by dash and marker, not by colour alone."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import uniform_filter1d

from omiad.names import one_line
from omiad.report.curves import Array, Curve

Chart = dict[str, str]
"""What the templates show of a chart: its title, its description and its SVG element."""

COLOURS = ("#0b6bcb", "#b8500d", "#00795a", "#a1357f", "#6b5b00", "#4b4f56")
_DASHES: Sequence[Any] = ("-", "--", ":", "-.", (0, (8, 2)), (0, (3, 1, 1, 1)))
_MARKERS = "o^sDvP"
"""Appearance of each run, dark enough for white paper."""

_STYLE = rc_params_from_file(
    Path(__file__).parent / "assets" / "charts.mplstyle", use_default_template=False
)


def picture(
    paint: Callable[[Figure], object], size: tuple[float, float], *, kind: str, salt: str = ""
) -> bytes:
    """Draw a figure (width and height in inches); every call gives the same bytes.

    The salt is any text: it keeps the identifiers of several SVG charts of one page apart.
    """
    content = io.BytesIO()
    with rc_context({**_STYLE, "svg.hashsalt": ascii(salt)}), warnings.catch_warnings():
        # A browser finds other fonts for the characters that DejaVu does not have.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure(figsize=size)
        paint(figure)
        figure.savefig(content, format=kind)
    return content.getvalue()


def chart(
    title: str,
    description: str,
    draw: Callable[[Axes], None],
    *,
    size: tuple[float, float] = (3.2, 2.5),
    box: tuple[float, float, float, float] | None = (0.16, 0.18, 0.79, 0.73),
) -> Chart:
    """Return a chart with its picture as an SVG element without metadata and global styles.

    Args:
        title: What the chart shows; the page writes it above the picture.
        description: The same in words and figures, for readers who cannot see the picture. Each
            chart of a page needs its own, because identifiers are made of it.
        draw: Draws into the empty axes.
        size: Width and height in inches.
        box: Left, bottom, width and height of the axes as parts of the picture; None finds a box
            that all labels fit around, in twice the time.
    """

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("none" if box else "constrained")
        draw(figure.add_axes(box) if box else figure.subplots())

    text = picture(paint, size, kind="svg", salt=description).decode()
    text = re.sub(r"^.*?<svg[^>]*>|<metadata>.*?</metadata>|<style.*?</style>|</svg>\s*$", "",
                  text, flags=re.DOTALL)  # fmt: skip
    # Each chart numbers its groups from 1, but an identifier may occur only once in a page.
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    width, height = (round(72 * length, 1) for length in size)
    svg = Markup(f'<svg viewBox="0 0 {width} {height}">{text}</svg>')
    return {"title": title, "description": description, "svg": svg}


def draw_rates(
    axes: Axes, curves: Sequence[Curve | None], *, labels: tuple[str, str], x_limit: float
) -> None:
    """Draw one curve of each run, where it is defined, in the unit square or a part of it."""
    for number, curve in enumerate(curves):
        if curve is not None:
            axes.plot(*curve, **_look(number) | {"marker": ""}, clip_on=False)
    axes.set(xlim=(0, x_limit), ylim=(0, 1), xlabel=labels[0], ylabel=labels[1])
    axes.locator_params(nbins=5)


def draw_histogram(axes: Axes, normal: Array, defective: Array, threshold: float | None) -> None:
    """Draw the histogram of image scores: normal images filled, defective ones hatched."""
    edges = np.histogram_bin_edges(np.concatenate([normal, defective]), 24)
    counts = [np.histogram(scores, edges)[0] for scores in (normal, defective)]
    axes.stairs(counts[0], edges, fill=True, color=COLOURS[0], alpha=0.6, label="normal")
    axes.stairs(counts[1], edges, color=COLOURS[1], hatch="////", label="defective")
    if threshold is not None:
        axes.axvline(threshold, color="k", linestyle="--", label=f"threshold {threshold:.4g}")
    axes.locator_params(axis="y", integer=True)
    axes.set(xlabel="image score", ylabel="images", ylim=(0, None))
    axes.legend(fontsize=7.5, ncols=3, loc="lower center", bbox_to_anchor=(0.44, 0.97),
                columnspacing=1, handlelength=1.6)  # fmt: skip


def draw_intervals(
    axes: Axes,
    categories: Sequence[str],
    runs: Sequence[Sequence[tuple[float, float, float] | None]],
) -> None:
    """Draw value, low and high in % of each category, for each run where they are defined."""
    for number, run in enumerate(runs):
        known = [(place, *values) for place, values in enumerate(run) if values]
        place, value, low, high = np.array(known, dtype=float).reshape(-1, 4).T
        shift = 0.7 * ((number + 0.5) / len(runs) - 0.5)
        reach = np.maximum([value - low, high - value], 0)
        look = _look(number) | {"linestyle": "", "markersize": 5}
        axes.errorbar(value, place + shift, xerr=reach, **look)
    names = [one_line(name) for name in categories]
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    axes.set_yticks(range(len(short)), short)
    axes.set(xlabel="%", ylim=(len(short) - 0.5, -0.5))
    axes.set_xlim(right=101)
    axes.grid(visible=False, axis="y")


def draw_logged(axes: Axes, points: Array) -> None:
    """Draw logged steps and values (K, 2), and the moving average of the values."""
    steps, values = points.T
    axes.plot(steps, values, color=COLOURS[5], alpha=0.5, linewidth=0.7)
    smooth = moving_average(values, max(1, len(values) // 20))
    axes.plot(steps, smooth, color=COLOURS[0], marker="o" if len(values) == 1 else "")
    axes.locator_params(axis="x", integer=True, nbins=5)
    axes.set(xlabel="optimiser step")
    if values.min() > 0 and values.max() > 100 * values.min():
        axes.set_yscale("log")


def draw_key(axes: Axes, number: int) -> None:
    """Draw the line and marker of a run, for a legend."""
    axes.set_axis_off()
    axes.plot(range(3), [0] * 3, **_look(number), markevery=[1])


def moving_average(values: Array, reach: int) -> Array:
    """Average each value with up to `reach` neighbours on either side."""
    average = partial(uniform_filter1d, size=2 * reach + 1, mode="constant")
    return np.asarray(average(values) / average(np.ones_like(values)))


def _look(number: int) -> dict[str, Any]:
    """Return colour, dash and marker of a run."""
    number %= len(COLOURS)
    return {"color": COLOURS[number], "linestyle": _DASHES[number], "marker": _MARKERS[number]}
