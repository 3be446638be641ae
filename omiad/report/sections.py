"""What the templates show of summary, results and curves; images.py and training.py do the rest."""

import json
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import cycle
from typing import Any

from omiad.paper.printed import MEAN
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
from omiad.report.runs import Runs, TestedRun
from omiad.report.tables import FIGURES, Row, best_figures, in_words, paper_rows, rows_of
from omiad.results import measure

_CURVES = {
    "image ROC": (("false-positive rate", "recall"), 1.0, "image_auroc"),
    "image PR": (("recall", "precision"), 1.0, "image_ap"),
    "pixel ROC": (("false-positive rate", "recall"), 1.0, "pixel_auroc"),
    "pixel PR": (("recall", "precision"), 1.0, "pixel_ap"),
    "PRO": (("false-positive rate", "mean overlap of regions"), FPR_LIMIT, "aupro"),
}
"""Labels of the axes, end of the horizontal one, and the figure that sums the curve up."""


def summary(tested: Sequence[TestedRun]) -> dict[str, Any]:
    """Return the means of each run, how they were measured, and each student with its teacher."""
    protocols: dict[str, list[TestedRun]] = defaultdict(list)
    for run in tested:
        protocols[json.dumps(measure(run.record), sort_keys=True)].append(run)
    return {
        "cards": list(zip(tested, [rows_of(run)[0] for run in tested], cycle(COLOURS))),
        "main": ("mad", "image_auroc", "pixel_auroc", "aupro"),
        "is_same_data": all(run.images == tested[0].images for run in tested),
        "protocols": [(measure(group[0].record), group) for group in protocols.values()],
        "notes": dict.fromkeys(
            f"{category}: {note}"
            for run in tested
            for category, note in (run.record.get("notes") or {}).items()
        ),
        # The hashes of their weights say which belong together.
        "pairs": [
            _pair(teacher, student)
            for student in tested
            for teacher in tested
            if (teacher.weights.get("model") or "") == student.weights.get("teacher")
        ],
    }


def _pair(teacher: TestedRun, student: TestedRun) -> dict[str, Any]:
    """Return the means of teacher and student, their differences, and the time of each."""
    before, after = (rows_of(run)[0].figures for run in (teacher, student))
    rows = [
        (heading, before[key], after[key], f"{round(after[key] - before[key], 1) + 0.0:+.1f}")
        for key, heading in FIGURES.items()
        if key in before and key in after
    ]
    slow, fast = (run.record.get("latency") or {} for run in (teacher, student))
    if slow and fast:
        times = slow["ms_per_image"], fast["ms_per_image"]
        is_comparable = slow["batch_size"] == fast["batch_size"] and teacher.record.get(
            "hardware"
        ) == student.record.get("hardware")
        ratio = f"{times[0] / times[1]:.2f} times as fast"
        rows.append(("ms per image", *times, ratio if is_comparable else "measured differently"))
    return {"teacher": teacher, "student": student, "rows": rows, "is_timed": bool(slow and fast)}


def legend(tested: Sequence[TestedRun], section: str) -> list[Chart]:
    """Return the line and marker of each run."""
    return [
        chart(
            run.name,
            f"{section} {number}",
            partial(draw_key, number=number),
            size=(0.5, 0.2),
            box=(0, 0, 1, 1),
        )
        for number, run in enumerate(tested)
    ]


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
    return chart(title, description, draw, size=(5.6, height), box=None)


def curves(runs: Runs) -> list[dict[str, Any]]:
    """Return the curves of each category, and the score histogram of each run."""
    rows = [row for run in runs.tested for row in rows_of(run)]
    found = []
    for category in runs.categories:
        scores = [run.scores.get(category) for run in runs.tested]
        of_runs = [of.curves if of is not None else {} for of in scores]
        charts, counts = list[Chart](), ""
        for name, (labels, x_limit, key) in _CURVES.items():
            lines = [of_run.get(name) for of_run in of_runs]
            if any(lines):
                described = f"{name} of {category}; {in_words(rows, category, key)}"
                draw = partial(draw_rates, curves=lines, labels=labels, x_limit=x_limit)
                charts.append(chart(name, described, draw))
        for run, of in zip(runs.tested, scores, strict=True):
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
