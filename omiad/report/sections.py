"""The sections summary, results and curves; images.py and training.py make the other sections."""

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from omiad.metrics.table import HEADINGS
from omiad.record import measure
from omiad.report.charts import (
    COLOURS,
    Chart,
    chart,
    draw_histogram,
    draw_intervals,
    draw_key,
    draw_rates,
)
from omiad.report.curves import FPR_LIMIT
from omiad.report.runs import TestedRun, categories_of
from omiad.report.tables import Row, best_figures, in_words, paper_rows, rows_of

_CURVES = {
    "image ROC": (("false-positive rate", "recall"), 1.0, "image_auroc"),
    "image PR": (("recall", "precision"), 1.0, "image_ap"),
    "pixel ROC": (("false-positive rate", "recall"), 1.0, "pixel_auroc"),
    "pixel PR": (("recall", "precision"), 1.0, "pixel_ap"),
    "PRO": (("false-positive rate", "mean overlap of regions"), FPR_LIMIT, "aupro"),
}
"""Labels of the axes, end of the horizontal one, and the figure that sums the curve up."""


def summary(runs: Sequence[TestedRun]) -> dict[str, Any]:
    """Return the means of each run, how they were measured, and each student with its teacher."""
    protocols: dict[str, list[TestedRun]] = defaultdict(list)
    for run in runs:
        protocols[json.dumps(measure(run.record), sort_keys=True)].append(run)
    cards: list[dict[str, Any]] = [
        {"run": run, "mean": rows_of(run)[0], "weights": run.record["weights"] or {}}
        for run in runs
    ]
    return {
        "cards": cards,
        "colours": COLOURS,
        "is_same_data": all(run.images == runs[0].images for run in runs),
        "protocols": [(measure(group[0].record), group) for group in protocols.values()],
        "notes": dict.fromkeys(
            f"{category}: {note}" for run in runs for category, note in run.record["notes"].items()
        ),
        # The hashes of their weights say which teacher a student belongs to.
        "pairs": [
            (teacher, student)
            for student in cards
            for teacher in cards
            if teacher["weights"].get("model", "") == student["weights"].get("teacher")
        ],
    }


def legend(runs: Sequence[TestedRun], section: str) -> list[Chart]:
    """Return the line and marker of each run."""
    look: dict[str, Any] = {"size": (0.5, 0.2), "box": (0, 0, 1, 1)}
    return [
        chart(run.name, f"{section} {number}", partial(draw_key, number=number), **look)
        for number, run in enumerate(runs)
    ]


def results(runs: Sequence[TestedRun]) -> dict[str, Any]:
    """Return the rows of all figures, and charts of their intervals."""
    ours = [row for run in runs for row in rows_of(run)]
    rows = ours + paper_rows(categories_of(runs))
    single = [row for row in rows if row.category is not None]
    return {
        "means": [row for row in rows if row.category is None],
        "single": sorted(single, key=lambda row: row.category or ""),
        "best": best_figures(rows),
        "intervals": [_intervals(runs, ours, key) for key in ("image_auroc", "aupro")],
        "decided": [run for run in runs if run.record.get("decisions")],
    }


def _intervals(runs: Sequence[TestedRun], rows: Sequence[Row], key: str) -> Chart | None:
    known = {
        (row.method, row.category): (value, *row.intervals.get(key, (value, value)))
        for row in rows
        if (value := row.figures.get(key)) is not None
    }
    if not known:
        return None
    names = categories_of(runs)
    title = f"{HEADINGS[key]} with 95 % bootstrap intervals"
    description = "; ".join([title, *(f"{name}: {in_words(rows, name, key)}" for name in names)])
    values = [[known.get((run.name, name)) for name in names] for run in runs]
    draw = partial(draw_intervals, categories=names, runs=values)
    height = 0.7 + len(names) * max(0.26, 0.12 * len(values) + 0.1)
    return chart(title, description, draw, size=(5.6, height), box=None)


def curves(runs: Sequence[TestedRun]) -> list[dict[str, Any]]:
    """Return the curves of each category, and the score histogram of each run."""
    rows = [row for run in runs for row in rows_of(run)]
    found = []
    for category in categories_of(runs):
        scores = [run.scores.get(category) for run in runs]
        of_runs = [of.curves if of is not None else {} for of in scores]
        charts, counts = list[Chart](), ""
        for name, (labels, x_limit, key) in _CURVES.items():
            lines = [of_run.get(name) for of_run in of_runs]
            if any(lines):
                described = f"{name} of {category}; {in_words(rows, category, key)}"
                draw = partial(draw_rates, curves=lines, labels=labels, x_limit=x_limit)
                charts.append(chart(name, described, draw))
        for run, of in zip(runs, scores, strict=True):
            if of is None:
                continue
            threshold = of.threshold
            normal, defective = of.score[~of.is_anomalous], of.score[of.is_anomalous]
            images = f"{len(normal)} normal and {len(defective)} defective test images"
            counts = counts or images
            said = "none" if threshold is None else f"{threshold:.4g}"
            described = f"image scores of {run.name} on {category}; {images}; threshold {said}"
            draw = partial(draw_histogram, normal=normal, defective=defective, threshold=threshold)
            charts.append(chart(f"scores of {run.name}", described, draw))
        found.append({"category": category, "counts": counts, "charts": charts})
    return found
