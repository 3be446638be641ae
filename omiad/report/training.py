"""Training curves: read what a fit logged, and draw it as one picture or as charts of a page."""

import csv
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from omiad.arrays import HIGHEST
from omiad.errors import InputError
from omiad.files import write_whole
from omiad.names import one_line
from omiad.report.charts import chart, draw_logged, picture
from omiad.report.curves import Array


def training_curves(metrics_csv: Path, output: Path, title: str) -> None:
    """Draw each `train/*` column of a CSVLogger file over the optimiser steps, below a title."""
    curves = _read(metrics_csv)
    if not curves:
        raise InputError(f"'{metrics_csv}' has no finite train/* figures to draw.")
    columns = min(3, len(curves))
    rows = math.ceil(len(curves) / columns)

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("constrained")
        figure.suptitle(title)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
        for axes, (name, points) in zip(grid, curves.items(), strict=False):
            draw_logged(axes, points)
            axes.set_title(one_line(name), fontsize=10, loc="left")

    write_whole(output, picture(paint, (4.2 * columns, 0.4 + 2.4 * rows), kind="png"))


def training(trainings: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return charts of what each fit logged in its metrics.csv, losses apart from the others."""
    found = []
    for fit, path in trainings.items():
        charts: dict[bool, list[Any]] = {True: [], False: []}
        for name, points in _read(path).items():
            first, last = points[[0, -1], 1]
            said = f"{name} over {len(points)} logged steps, from {first:.4g} to {last:.4g}; {fit}"
            drawn = chart(name, said, partial(draw_logged, points=points), box=None)
            charts["loss" in name].append(drawn)
        if any(charts.values()):
            found.append({"name": fit, "losses": charts[True], "others": charts[False]})
    return found


def _read(path: Path) -> dict[str, Array]:
    """Read the finite values of each `train/*` column as steps and values (K, 2), by its title."""
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file, restkey=""):
                for name, text in row.items():
                    if name.startswith("train/") and text and abs(value := float(text)) <= HIGHEST:
                        points.setdefault(name, []).append((float(int(row["step"] or "")), value))
    except (ValueError, OverflowError, KeyError, csv.Error) as error:
        raise InputError(
            f"'{path}' is not a metrics.csv of `omiad fit` ({error}). Copy the file again, or "
            f"leave this run out."
        ) from error
    return {
        name.removeprefix("train/").replace("_", " "): np.array(values)
        for name, values in sorted(points.items())
    }
