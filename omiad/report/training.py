"""Training curves: read what a fit logged, and draw it as one picture."""

import csv
import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from omiad.errors import InputError
from omiad.report.charts import draw_logged, picture, printable

_COLUMNS = 3


def training_curves(metrics_csv: Path, output: Path, title: str) -> None:
    """Draw each `train/*` column of a CSVLogger file over the optimiser steps.

    Args:
        metrics_csv: The file that Lightning's CSVLogger wrote.
        output: Picture to write.
        title: Heading of the picture.

    Raises:
        InputError: If the file has no training figures.
    """
    curves = read_curves(metrics_csv)
    if not curves:
        raise InputError(f"'{metrics_csv}' has no finite train/* figures to draw.")
    columns = min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("constrained")
        figure.suptitle(title)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid[len(curves) :]:
            axes.set_axis_off()
        for axes, (name, points) in zip(grid, curves.items(), strict=False):
            draw_logged(axes, points)
            axes.set_title(printable(name).replace("_", " "), fontsize=10, loc="left")

    output.write_bytes(picture(paint, (4.2 * columns, 0.4 + 2.4 * rows), kind="png"))


def read_curves(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read the finite values of each `train/*` column as steps and values (K, 2).

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
                        key = name.removeprefix("train/")
                        points.setdefault(key, []).append((float(row["step"]), value))
    except (ValueError, KeyError, csv.Error) as error:
        raise InputError(
            f"'{path}' is not a metrics.csv of `omiad fit` ({error}). Copy the file again, or "
            f"leave this run out."
        ) from error
    return {name: np.array(values) for name, values in sorted(points.items())}
