"""What the templates show of results, curves and training; summary.py and images.py do the rest."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omiad.paper.printed import MEAN
from omiad.report.charts import (
    Chart,
    draw_histogram,
    draw_intervals,
    draw_logged,
    draw_rates,
    svg,
)
from omiad.report.curves import FPR_LIMIT
from omiad.report.runs import Runs, TestedRun
from omiad.report.tables import FIGURES, Row, best_figures, in_words, paper_rows, rows_of
from omiad.report.training import read_curves

_CURVES = {
    "image ROC": (("false-positive rate", "recall"), 1.0, "image_auroc"),
    "image PR": (("recall", "precision"), 1.0, "image_ap"),
    "pixel ROC": (("false-positive rate", "recall"), 1.0, "pixel_auroc"),
    "pixel PR": (("recall", "precision"), 1.0, "pixel_ap"),
    "PRO": (("false-positive rate", "mean overlap of regions"), FPR_LIMIT, "aupro"),
}
"""Labels of the axes, end of the horizontal one, and the figure that sums the curve up."""


def results(runs: Runs) -> dict[str, Any]:
    """Return the rows of all figures, and charts of their intervals."""
    ours = [row for run in runs.tested for row in rows_of(run)]
    rows = ours + paper_rows(runs.categories)
    single = [row for row in rows if row.category != MEAN]
    return {
        "means": [row for row in rows if row.category == MEAN],
        "single": sorted(single, key=lambda row: row.category),
        "best": best_figures(rows),
        "intervals": [_intervals(runs, ours, key) for key in ("image_auroc", "aupro")],
    }


def _intervals(runs: Runs, rows: Sequence[Row], key: str) -> Chart | None:
    known = {
        (row.method, row.category): (value, *row.intervals.get(key, (value, value)))
        for row in rows
        if (value := row.figures.get(key)) is not None
    }
    if not known:
        return None
    names = runs.categories
    title = f"{FIGURES[key]} with 95 % bootstrap intervals"
    description = "; ".join([title, *(f"{name}: {in_words(rows, name, key)}" for name in names)])
    values = [[known.get((run.name, name)) for name in names] for run in runs.tested]
    draw = partial(draw_intervals, categories=names, runs=values)
    height = 0.7 + len(names) * max(0.26, 0.12 * len(values) + 0.1)
    return Chart(title, description, svg(draw, salt=title, size=(5.6, height), box=None))


def curves(runs: Runs) -> list[dict[str, Any]]:
    """Return the curves and score histograms of each category."""
    found = []
    for category in runs.categories:
        tested = [run for run in runs.tested if category in run.scores]
        histograms = [_histogram_of(run, category) for run in tested]
        found.append({
            "category": category,
            "counts": _counts(tested[0], category),
            "charts": _curves_of(runs.tested, category) + histograms,
        })  # fmt: skip
    return found


def _counts(run: TestedRun, category: str) -> str:
    labels = run.scores[category].is_anomalous
    return f"{int((~labels).sum())} normal and {int(labels.sum())} defective test images"


def _curves_of(runs: Sequence[TestedRun], category: str) -> list[Chart]:
    found = [run.scores[category].curves if category in run.scores else {} for run in runs]
    rows = [row for run in runs for row in rows_of(run)]
    charts = []
    for name, (labels, x_limit, key) in _CURVES.items():
        lines = [of_run.get(name) for of_run in found]
        if any(lines):
            description = f"{name} of {category}; {in_words(rows, category, key)}"
            draw = partial(draw_rates, curves=lines, labels=labels, x_limit=x_limit)
            charts.append(Chart(name, description, svg(draw, salt=description)))
    return charts


def _histogram_of(run: TestedRun, category: str) -> Chart:
    of, threshold = run.scores[category], run.scores[category].threshold
    said = "none" if threshold is None else f"{threshold:.4g}"
    description = (
        f"image scores of {run.name} on {category}; {_counts(run, category)}; threshold {said}"
    )
    normal, defective = of.score[~of.is_anomalous], of.score[of.is_anomalous]
    draw = partial(draw_histogram, normal=normal, defective=defective, threshold=threshold)
    return Chart(f"scores of {run.name}", description, svg(draw, salt=description))


def training(trainings: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the logged figures of each fit, losses apart from the others."""
    found = []
    for fit, path in trainings.items():
        charts: dict[bool, list[Chart]] = {True: [], False: []}
        for name, points in read_curves(path).items():
            title, values = name.replace("_", " "), points[:, 1]
            said = f"{len(values)} logged steps, from {values[0]:.4g} to {values[-1]:.4g}"
            drawn = svg(partial(draw_logged, points=points), salt=f"{fit}: {name}", box=None)
            charts["loss" in name].append(Chart(title, f"{title} over {said}", drawn))
        if any(charts.values()):
            found.append({"name": fit, "losses": charts[True], "others": charts[False]})
    return found
