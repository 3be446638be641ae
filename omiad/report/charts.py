"""Charts as inline SVG, in one style; series differ by dash and marker, not by colour alone."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.report.curves import Axis

Array = NDArray[np.float64]

_WIDTH, _HEIGHT = 280, 216
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 30, 12, 36
_WIDE, _ROW, _LABELS = 440, 26, 122
_TITLE_LETTER, _LABEL_LETTER = 8.8, 6.6
"""Width of a letter in the widest usual font; see page.css."""
NUM_STYLES = 6
"""Series whose dashes, markers and colours differ; see page.css."""

_MARKERS = (
    '<circle cx="{x}" cy="{y}" r="4"/>',
    '<path d="M{x} {y}m-4.5 4h9l-4.5 -8.5z"/>',
    '<path d="M{x} {y}m-4 -4h8v8h-8z"/>',
    '<path d="M{x} {y}m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
    '<path d="M{x} {y}m-4.5 -4h9l-4.5 8.5z"/>',
    '<path d="M{x} {y}m-5 -2h10v4h-10z"/>',
)


class Series(NamedTuple):
    """One line or row of points.

    Attributes:
        name: What the tooltip says.
        x: Values (K,).
        y: Values (K,).
        style: Number of its colour, dash and marker; None is thin and grey.
    """

    name: str
    x: Array
    y: Array
    style: int | None


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    unit_square: tuple[float, float] | None = None,
    log: bool = False,
    description: str = "",
) -> str:
    """Draw lines.

    Args:
        series: The lines.
        title: What stands above.
        x_label: Of the horizontal axis, with its unit.
        y_label: Of the vertical axis, with its unit.
        unit_square: Highest x and y of axes that start at 0; by default the values tell.
        log: Whether the vertical axis is logarithmic.
        description: What it shows in words, for those who do not see it.
    """
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    if unit_square is None:
        x_values = np.concatenate([line.x for line in series])
        y_values = np.concatenate([line.y for line in series])
        whole = bool((x_values == x_values.round()).all())
    else:
        x_values, y_values = (np.array([0.0, high]) for high in unit_square)
        whole = False
    x_axis = Axis(x_values, left, right, whole=whole)
    y_axis = Axis(y_values, bottom, top, log=log)
    parts = [_axes(x_axis, y_axis, x_label, y_label)]
    for line in series:
        points = zip(x_axis.pixels(line.x), y_axis.pixels(line.y), strict=True)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = "faint" if line.style is None else f"s{line.style % NUM_STYLES}"
        parts.append(
            f'<polyline class="line {style}" points="{path}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return _svg(title, "".join(parts), (_WIDTH, _HEIGHT), description=description)


def histogram(
    normal: Array,
    defective: Array,
    threshold: float | None,
    *,
    title: str,
    num_bins: int = 24,
    description: str = "",
) -> str:
    """Draw how many images have which score: normal ones filled, defective ones hatched.

    Args:
        normal: Scores of normal images.
        defective: Scores of defective images.
        threshold: Score to mark, if any.
        title: What stands above.
        num_bins: Bars from the lowest score to the highest.
        description: What it shows in words, for those who do not see it.
    """
    left, right, top, bottom = _LEFT, _WIDTH - _RIGHT, _TOP, _HEIGHT - _BOTTOM
    scores = np.concatenate([normal, defective])
    edges = np.histogram_bin_edges(scores, num_bins)
    counts = [np.histogram(part, edges)[0] for part in (normal, defective)]
    x_axis = Axis(edges, left, right)
    y_axis = Axis(np.array([0.0, max(1, *(c.max() for c in counts))]), bottom, top, whole=True)
    parts = [_axes(x_axis, y_axis, "image score", "images")]
    pixels = x_axis.pixels(edges)
    for what, heights in zip(("normal", "defective"), counts, strict=True):
        for i in np.flatnonzero(heights):
            y = float(y_axis.pixels(np.array([float(heights[i])]))[0])
            tip = f"{heights[i]} {what}, {edges[i]:.4g} to {edges[i + 1]:.4g}"
            parts.append(
                f'<rect class="bar {what}" x="{pixels[i]:.1f}" y="{y:.1f}" '
                f'width="{pixels[i + 1] - pixels[i]:.1f}" height="{bottom - y:.1f}">'
                f"<title>{tip}</title></rect>"
            )
    if threshold is not None:
        x = float(x_axis.pixels(np.array([threshold]))[0])
        anchor, shift = ("end", -4) if x > (left + right) / 2 else ("start", 4)
        parts.append(
            f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
            f'<text class="threshold" x="{x + shift:.1f}" y="{top - 2}" text-anchor="{anchor}">'
            f"{threshold:.4g}</text>"
        )
    return _svg(title, "".join(parts), (_WIDTH, _HEIGHT), description=description)


def interval_chart(
    rows: Sequence[str],
    series: Sequence[tuple[str, Sequence[tuple[float, float, float] | None]]],
    *,
    title: str,
    description: str = "",
) -> str:
    """Draw figures with their intervals, a row for each category.

    Args:
        rows: Names of the rows.
        series: Name of each run, and for each row value, low and high in %, or None.
        title: What stands above.
        description: What it shows in words, for those who do not see it.
    """
    width, step = _WIDE, max(_ROW, 9 * len(series) + 10)
    left, right, top = _LABELS, width - 18, _TOP + 6
    bottom = top + step * len(rows)
    known = [value for _, values in series for row in values if row for value in row]
    low = max(0.0, 10 * np.floor((min(known, default=0.0) - 2) / 10))
    axis = Axis(np.array([low, 100.0]), left, right)
    parts = []
    for label, x in zip(axis.labels(), axis.pixels(axis.ticks()), strict=True):
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{label} %</text>')
    for i, name in enumerate(rows):
        middle = top + step * (i + 0.5)
        parts.append(
            f'<text x="{left - 8}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{_shortened(name, left - 8, _LABEL_LETTER)}</text>"
        )
        for number, (run, values) in enumerate(series):
            row = values[i]
            if row is None:
                continue
            y = middle + 9 * (number - (len(series) - 1) / 2)
            x, start, end = axis.pixels(np.array(row)).tolist()
            marker = _MARKERS[number % NUM_STYLES].format(x=f"{x:.1f}", y=f"{y:.1f}")
            tip = f"{name}, {run}: {row[0]:.1f} % ({row[1]:.1f} to {row[2]:.1f})"
            parts.append(
                f'<g class="point s{number % NUM_STYLES}"><line x1="{start:.1f}" x2="{end:.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>{marker}<title>{escape(tip)}</title></g>'
            )
    return _svg(title, "".join(parts), (width, int(bottom) + 24), description=description)


def legend(names: Sequence[str]) -> str:
    """Say which line and marker belong to which run."""
    keys = []
    for i, name in enumerate(names):
        marker = _MARKERS[i % NUM_STYLES].format(x=18, y=7)
        keys.append(
            f'<li><svg class="key" viewBox="0 0 36 14" aria-hidden="true">'
            f'<path class="line s{i % NUM_STYLES}" d="M0 7h36"/>'
            f'<g class="point s{i % NUM_STYLES}">{marker}</g></svg>{escape(name)}</li>'
        )
    return f'<ul class="legend">{"".join(keys)}</ul>'


def _axes(x_axis: Axis, y_axis: Axis, x_label: str, y_label: str) -> str:
    left, right, bottom, top = x_axis.first, x_axis.last, y_axis.first, y_axis.last
    parts = []
    for label, y in zip(y_axis.labels(), y_axis.pixels(y_axis.ticks()), strict=True):
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>')
    for label, x in zip(x_axis.labels(), x_axis.pixels(x_axis.ticks()), strict=True):
        parts.append(f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{label}</text>')
    middle = (left + right) / 2
    parts.append(f'<path class="frame" d="M{left} {top}V{bottom}H{right}"/>')
    parts.append(
        f'<text class="label" x="{middle}" y="{bottom + 29}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="label" transform="translate(10 {(top + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    return "".join(parts)


def _svg(title: str, content: str, size: tuple[int, int], *, description: str) -> str:
    room = size[0] - _LEFT
    return (
        f'<svg class="chart" viewBox="0 0 {size[0]} {size[1]}" role="img" '
        f'aria-label="{escape(description or title)}"><text class="title" x="{_LEFT}" y="13">'
        f"{_shortened(title, room, _TITLE_LETTER)}</text>{content}</svg>"
    )


def _shortened(text: str, room: float, letter: float) -> str:
    """Return the beginning that fits, and the whole as a tooltip."""
    count = int(room / letter)
    short = text if len(text) <= count else f"{text[: count - 1]}…"
    return f"{escape(short)}<title>{escape(text)}</title>"
