"""Training curves as a picture."""

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from omiad.errors import InputError

_WIDTH, _HEIGHT, _COLUMNS = 420, 240, 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 58, 30, 12, 26
_INK, _GRID, _RAW, _SMOOTH = (40, 40, 40), (225, 225, 225), (170, 190, 220), (20, 80, 160)
_LOG_DECADES = 2


class Axis:
    """Where values of one axis lie, on a linear or logarithmic scale.

    Args:
        values: What must fit.
        first: Pixel of the lowest value.
        last: Pixel of the highest.
        log: Whether the scale is logarithmic.
        whole: Whether only whole numbers are marked.
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        first: int,
        last: int,
        *,
        log: bool = False,
        whole: bool = False,
    ) -> None:
        self.log, self.whole = log, whole
        scaled = np.log10(values) if log else values
        self.low, self.high = float(scaled.min()), float(scaled.max())
        if self.high - self.low < 1e-9 * max(1.0, abs(self.high)):
            self.low, self.high = self.low - 0.5, self.high + 0.5
        self.first, self.last = first, last

    def pixels(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pixel of each value."""
        scaled = np.log10(values) if self.log else values
        share = (scaled - self.low) / (self.high - self.low)
        return np.asarray(self.first + share * (self.last - self.first))

    def ticks(self) -> NDArray[np.float64]:
        """Return up to about five readable values inside the axis."""
        if self.log and self.high - self.low >= 1:
            return np.asarray(10.0 ** np.arange(math.ceil(self.low), math.floor(self.high) + 1))
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        rough = (high - low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough)
        if self.whole:
            step = max(step, 1.0)
        return np.asarray(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step)

    def labels(self) -> list[str]:
        """Return the text of each tick, with the digits that tell it from its neighbours."""
        ticks = self.ticks()
        if self.whole:
            return [f"{tick:.0f}" for tick in ticks]
        digits = 4
        if len(ticks) > 1:
            largest, gap = np.abs(ticks).max(), np.diff(ticks).min()
            digits = math.floor(math.log10(largest)) - math.floor(math.log10(gap)) + 1
        form = _as_power if np.abs(ticks).max() < 1e-3 else "{:.{}g}".format
        return [form(tick, min(max(digits, 4), 12)) for tick in ticks]


def _as_power(value: float, digits: int) -> str:
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def training_curves(metrics_csv: Path, output: Path, title: str) -> None:
    """Draw each `train/*` column of a CSVLogger file over the optimiser steps.

    Args:
        metrics_csv: The file Lightning's CSVLogger wrote.
        output: Picture to write.
        title: Heading of the picture.

    Raises:
        InputError: If the file has no training figures.
    """
    curves = read_curves(metrics_csv)
    if not curves:
        raise InputError(f"'{metrics_csv}' holds no train/* figures, so there are no curves.")
    columns = min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    canvas = Image.new("RGB", (columns * _WIDTH, 30 + rows * _HEIGHT), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    draw.text((10, 8), title, fill=_INK, font=ImageFont.load_default(size=15))
    for i, (name, points) in enumerate(curves.items()):
        corner = ((i % columns) * _WIDTH, 30 + (i // columns) * _HEIGHT)
        _draw_chart(draw, corner, name, points)
    canvas.save(output)


def read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read each `train/*` column as steps and values (K, 2), without what is not finite.

    Raises:
        InputError: If the file is not a CSVLogger's.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            names = [name for name in rows.fieldnames or () if name.startswith("train/")]
            for row in rows:
                for name in names:
                    if (text := row[name]) and math.isfinite(value := float(text)):
                        points.setdefault(name.removeprefix("train/"), []).append(
                            (float(row["step"]), value)
                        )
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(
            f"'{path}' is not a metrics.csv of `omiad fit` ({error}). Copy it again, or leave its "
            f"run out."
        ) from error
    return {name: np.array(values) for name, values in sorted(points.items())}


def _draw_chart(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], name: str, points: NDArray[np.float64]
) -> None:
    left, right = corner[0] + _LEFT, corner[0] + _WIDTH - _RIGHT
    top, bottom = corner[1] + _TOP, corner[1] + _HEIGHT - _BOTTOM
    steps, values = points.T
    log = spans_decades(values)
    x_axis = Axis(steps, left, right, whole=True)
    y_axis = Axis(values, bottom, top, log=log)
    font = ImageFont.load_default(size=11)
    for label, y in zip(y_axis.labels(), y_axis.pixels(y_axis.ticks()), strict=True):
        draw.line([(left, y), (right, y)], fill=_GRID)
        draw.text((left - 5, y), label, fill=_INK, font=font, anchor="rm")
    for label, x in zip(x_axis.labels(), x_axis.pixels(x_axis.ticks()), strict=True):
        draw.text((x, bottom + 5), label, fill=_INK, font=font, anchor="ma")
    draw.rectangle([left, top, right, bottom], outline=(160, 160, 160))
    heading = name.replace("_", " ") + (" (log)" if log else "")
    draw.text(
        (left, top - 6), heading, fill=_INK, font=ImageFont.load_default(size=12), anchor="ls"
    )
    window = max(1, len(values) // 20)
    for series, colour in ((values, _RAW), (smoothed(values, window), _SMOOTH)):
        line = list(zip(x_axis.pixels(steps), y_axis.pixels(series), strict=True))
        if len(line) == 1:
            draw.circle(line[0], 2, fill=colour)
        draw.line(line, fill=colour, width=1 if series is values else 2)


def spans_decades(values: NDArray[np.float64]) -> bool:
    """Return whether positive values are better drawn on a logarithmic scale."""
    return bool(values.min() > 0 and values.max() / values.min() > 10**_LOG_DECADES)


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Average over a centred window that shrinks at the ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window, 0), np.minimum(index + window + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))
