"""The parts of a report, each made of runs."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from omiad.report.charts import Series, histogram, interval_chart, legend, line_chart
from omiad.report.curves import read_curves, smoothed, spans_decades
from omiad.report.detection import FPR_LIMIT, thinned
from omiad.report.entries import Gallery
from omiad.report.page import Section, gallery_markup
from omiad.report.runs import TestedRun, taught
from omiad.report.summary import cards, notes, protocols
from omiad.report.tables import HEADINGS, figures_table, paper_rows, rows_of, side_by_side

_CURVES = {
    "image ROC": ("false-positive rate", "recall", (1.0, 1.0), "image_auroc"),
    "image PR": ("recall", "precision", (1.0, 1.0), "image_ap"),
    "pixel ROC": ("false-positive rate", "recall", (1.0, 1.0), "pixel_auroc"),
    "pixel PR": ("recall", "precision", (1.0, 1.0), "pixel_ap"),
    "PRO": ("false-positive rate", "mean overlap of regions", (FPR_LIMIT, 1.0), "aupro"),
}
"""Axes of each curve, where they end, and the figure that sums it up."""
_MAX_POINTS = 300
_BOLD = "%; the best of the methods shown at first is bold"


def summary(runs: Sequence[TestedRun]) -> Section:
    """Show the main figures of each run, and how they came about."""
    pairs = [side_by_side(teacher, student) for teacher, student in taught(runs)]
    content = cards(runs) + protocols(runs) + notes(runs) + "".join(pairs)
    return Section("summary", "Summary", content)


def results(runs: Sequence[TestedRun], categories: Sequence[str]) -> Section:
    """Show all figures, the paper's beside them where it has the data set, and their intervals."""
    ours = [row for run in runs for row in rows_of(run)]
    papers = paper_rows(categories)
    means = [row for row in (*ours, *papers) if row.category == "mean"]
    single = sorted(
        (row for row in (*ours, *papers) if row.category != "mean"), key=lambda row: row.category
    )
    charts = "".join(_by_category(runs, categories, key) for key in ("image_auroc", "aupro"))
    source = (
        "<p>Rows marked <span class=badge>paper</span> are printed in Feng et al., OmiAD, ICML "
        "2025, and were not measured here.</p>"
        if papers
        else ""
    )
    content = (
        figures_table(means, caption=f"Means over categories, {_BOLD}", with_category=False)
        + source
        + figures_table(single, caption=f"Each category, {_BOLD}", with_category=True)
        + f'<div class="wide">{legend([run.name for run in runs])}{charts}</div>'
    )
    return Section("results", "Results", content)


def _by_category(runs: Sequence[TestedRun], categories: Sequence[str], key: str) -> str:
    series = []
    for run in runs:
        ranges = (run.record.get("intervals") or {}).get("categories", {})
        values: list[tuple[float, float, float] | None] = []
        for category in categories:
            value = run.record["categories"].get(category, {}).get(key)
            low, high = ranges.get(category, {}).get(key, (value, value))
            values.append(None if value is None else (100 * value, 100 * low, 100 * high))
        series.append((run.name, values))
    if not any(value for _, values in series for value in values):
        return ""
    title = f"{HEADINGS[key]}, 95 % bootstrap interval"
    figures = "; ".join(
        f"{name}: {said}" for name in categories if (said := _said(runs, name, key))
    )
    return interval_chart(categories, series, title=title, description=f"{title}; {figures}")


def curves(runs: Sequence[TestedRun], categories: Sequence[str]) -> Section:
    """Show curves and score histograms of each category."""
    parts = []
    for number, category in enumerate(categories):
        charts = _curves_of(runs, category) + _histograms_of(runs, category)
        opened = " open" if number == 0 else ""
        parts.append(
            f"<details{opened}><summary>{escape(category)} "
            f'<span class="soft">{_counts(runs, category)}</span></summary>'
            f'<div class="charts">{"".join(charts)}</div></details>'
        )
    content = (
        "<p>The threshold of a category is the image score with the highest F1 on these test "
        "images; from it on an image counts as defective. Pixel curves pass through the exact "
        "rates at up to 256 thresholds. In histograms normal images are filled and defective ones "
        "hatched.</p>"
        f"{legend([run.name for run in runs])}"
        '<p><button type="button" class="plain" data-open="curves" hidden>Open or close all'
        f"</button></p>{''.join(parts)}"
    )
    return Section("curves", "Curves and scores", content)


def _counts(runs: Sequence[TestedRun], category: str) -> str:
    labels = next(r.scores[category].is_anomalous for r in runs if category in r.scores)
    return f"{int((~labels).sum())} normal and {int(labels.sum())} defective test images"


def _curves_of(runs: Sequence[TestedRun], category: str) -> list[str]:
    found = [run.scores[category].curves if category in run.scores else {} for run in runs]
    charts = []
    for name, (x_label, y_label, corner, key) in _CURVES.items():
        lines = [
            Series(runs[i].name, *thinned(of_run[name]), i)
            for i, of_run in enumerate(found)
            if name in of_run
        ]
        if lines:
            charts.append(
                line_chart(
                    lines,
                    title=f"{name}, {category}",
                    x_label=x_label,
                    y_label=y_label,
                    unit_square=corner,
                    description=f"{name} of {category}; {_said(runs, category, key)}",
                )
            )
    return charts


def _said(runs: Sequence[TestedRun], category: str, key: str) -> str:
    """Say a figure of each run in words."""
    figures = [(run.name, run.record["categories"].get(category, {}).get(key)) for run in runs]
    return "; ".join(
        f"{name}: {HEADINGS[key]} {100 * value:.1f} %"
        for name, value in figures
        if value is not None
    )


def _histograms_of(runs: Sequence[TestedRun], category: str) -> list[str]:
    charts = []
    for run in runs:
        if category in run.scores:
            of_run = run.scores[category]
            at = "none" if of_run.threshold is None else f"{of_run.threshold:.4g}"
            charts.append(
                histogram(
                    of_run.score[~of_run.is_anomalous],
                    of_run.score[of_run.is_anomalous],
                    of_run.threshold,
                    title=f"scores, {run.name}",
                    description=f"image scores of {run.name} on {category}; "
                    f"{_counts([run], category)}; threshold {at}",
                )
            )
    return charts


def gallery(runs: Sequence[TestedRun], shown: Gallery, *, max_megabytes: float) -> Section:
    """Show images, the worst mistakes first."""
    about = [f"<p>{_how_many(shown, max_megabytes)}"]
    about.append(
        " An image counts as defective from the threshold of its category on, the score with the "
        "highest F1 on these test images. A mistake is the worse the further its score lies on the "
        "wrong side, in standard deviations of the category's scores.</p>"
    )
    silent = [run.name for run in runs if not run.kept]
    if silent:
        about.append(
            f'<p class="warning">{escape(", ".join(silent))} kept no maps: tested before there '
            "were reports, or with --num_kept 0. Test again to see them.</p>"
        )
    if shown.num_without_photograph:
        about.append(
            f'<p class="warning">{shown.num_without_photograph} photographs were not found. Make '
            "the report again with --root, the folder where they lie now.</p>"
        )
    scales = [(run.name, run.scale if run.kept else None) for run in runs]
    content = "".join(about)
    return Section(
        "images", "Images", gallery_markup(content, scales) if shown.num_shown else content
    )


def _how_many(shown: Gallery, max_megabytes: float) -> str:
    if shown.num_shown == shown.num_tested:
        return f"All {shown.num_tested} test images."
    reasons = []
    if shown.num_kept < shown.num_tested:
        reasons.append(
            f"the tests kept the maps of {shown.num_kept} (--num_kept): of each category the "
            "worst false alarms and misses, and a spread"
        )
    if shown.num_shown < shown.num_kept:
        reasons.append(
            f"the pictures of a page may take {max_megabytes:g} MB (--max_megabytes), mistakes "
            "first"
        )
    return f"{shown.num_shown} of {shown.num_tested} test images: {'; '.join(reasons)}."


def training(trainings: Mapping[str, Path]) -> Section | None:
    """Show what was logged in training, losses first; None where nothing was."""
    parts = []
    for name, path in trainings.items():
        logged = read_curves(path)
        if not logged:
            continue
        losses = [key for key in logged if "loss" in key]
        others = [key for key in logged if "loss" not in key]
        parts.append(f"<h3>{escape(name)}</h3>")
        parts.append(f'<div class="charts">{"".join(_logged(logged[k], k) for k in losses)}</div>')
        if others:
            parts.append(
                f"<details><summary>{len(others)} further figures</summary>"
                f'<div class="charts">{"".join(_logged(logged[k], k) for k in others)}</div>'
                "</details>"
            )
    if not parts:
        return None
    return Section("training", "Training", "".join(parts))


def _logged(points: np.ndarray, name: str) -> str:
    steps, values = points.T
    log = spans_decades(values)
    smooth = smoothed(values, max(1, len(values) // 20))
    every = -(-len(values) // _MAX_POINTS)
    x, y, line = steps[::every], values[::every], smooth[::every]
    title = name.replace("_", " ")
    return line_chart(
        [Series(f"{title}, as logged", x, y, None), Series(f"{title}, smoothed", x, line, 0)],
        title=title,
        x_label="optimiser step",
        y_label="log scale" if log else "",
        log=log,
        description=f"{title} over {len(values)} logged steps: from {values[0]:.4g} to "
        f"{values[-1]:.4g}",
    )
