"""What the templates of a report's sections show."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omiad.report.charts import Chart, histogram, interval_chart, logged_chart, rates_chart
from omiad.report.curves import FPR_LIMIT
from omiad.report.entries import GalleryEntries
from omiad.report.runs import Runs, TestedRun
from omiad.report.tables import FIGURES, Row, figure_of, figures_in_words
from omiad.report.training import read_curves

_CURVES = {
    "image ROC": (("false-positive rate", "recall"), 1.0, "image_auroc"),
    "image PR": (("recall", "precision"), 1.0, "image_ap"),
    "pixel ROC": (("false-positive rate", "recall"), 1.0, "pixel_auroc"),
    "pixel PR": (("recall", "precision"), 1.0, "pixel_ap"),
    "PRO": (("false-positive rate", "mean overlap of regions"), FPR_LIMIT, "aupro"),
}
"""Labels of the axes, where the horizontal one ends, and the figure that sums the curve up."""

_BEST = "in %; the best of the methods shown at first is bold"


def results(runs: Runs, rows: Sequence[Row]) -> dict[str, Any]:
    """Return tables of all figures, and charts of their intervals.

    Args:
        runs: The runs.
        rows: All rows of figures.
    """
    means = [row for row in rows if row.category == "mean"]
    single = sorted((row for row in rows if row.category != "mean"), key=lambda row: row.category)
    return {
        "headings": list(FIGURES.values()),
        "means": {"caption": f"Means over categories {_BEST}", "rows": means},
        "single": {"caption": f"Each category {_BEST}", "rows": single},
        "has_paper": any(row.is_papers for row in rows),
        "interval_charts": [
            chart for key in ("image_auroc", "aupro") if (chart := _intervals(runs, key))
        ],
    }


def _intervals(runs: Runs, key: str) -> Chart | None:
    values = [[figure_of(run, name, key) for name in runs.categories] for run in runs.tested]
    if not any(any(row) for row in values):
        return None
    said = [figures_in_words(runs.tested, name, key) for name in runs.categories]
    figures = "; ".join(
        f"{name}: {words}" for name, words in zip(runs.categories, said, strict=True) if words
    )
    title = f"{FIGURES[key]} with 95 % bootstrap intervals"
    description = f"{title}; {figures}"
    return interval_chart(runs.categories, values, title=title, description=description)


def curves(runs: Runs) -> list[dict[str, Any]]:
    """Return the curves and score histograms of each category."""
    found = []
    for category in runs.categories:
        tested = [run for run in runs.tested if category in run.scores]
        found.append({
            "category": category,
            "counts": _counts(tested[0], category),
            "charts": [
                *_curves_of(runs.tested, category),
                *(_histogram_of(run, category) for run in tested),
            ],
        })  # fmt: skip
    return found


def _counts(run: TestedRun, category: str) -> str:
    labels = run.scores[category].is_anomalous
    return f"{int((~labels).sum())} normal and {int(labels.sum())} defective test images"


def _curves_of(runs: Sequence[TestedRun], category: str) -> list[Chart]:
    found = [run.scores[category].curves if category in run.scores else {} for run in runs]
    return [
        rates_chart(
            [of_run.get(name) for of_run in found],
            title=name,
            description=f"{name} of {category}; {figures_in_words(runs, category, key)}",
            labels=labels,
            x_limit=x_limit,
        )
        for name, (labels, x_limit, key) in _CURVES.items()
        if any(name in of_run for of_run in found)
    ]


def _histogram_of(run: TestedRun, category: str) -> Chart:
    scores = run.scores[category]
    limit = "none" if scores.threshold is None else f"{scores.threshold:.4g}"
    return histogram(
        scores.score[~scores.is_anomalous],
        scores.score[scores.is_anomalous],
        scores.threshold,
        title=f"scores of {run.name}",
        description=f"image scores of {run.name} on {category}; {_counts(run, category)}; "
        f"threshold {limit}",
    )


def images(
    runs: Sequence[TestedRun], entries: GalleryEntries, *, max_megabytes: float
) -> dict[str, Any]:
    """Return the images of the page, and what the page says about them.

    Args:
        runs: The tests.
        entries: The images.
        max_megabytes: Limit of all pictures together.
    """
    warnings = []
    if silent := [run.name for run in runs if not run.stored]:
        warnings.append(
            f"{', '.join(silent)} kept no maps (--num_kept 0). Repeat the test to see them."
        )
    if entries.num_without_photograph:
        warnings.append(
            f"{entries.num_without_photograph} photographs were not found. Make the report again "
            f"with --root, the folder where they are now."
        )
    return {
        "about": f"{_how_many(entries, max_megabytes)} An image counts as defective if its score "
        "reaches the threshold of its category: the score with the highest F1 on these test "
        "images. A mistake is worse the further its score is on the wrong side of the threshold, "
        "in standard deviations of the category's scores.",
        "warnings": warnings,
        "scales": [
            (i, run.name, *run.record["map_range"]) for i, run in enumerate(runs) if run.stored
        ],
        "gallery": entries.data if entries.num_shown else None,
    }


def _how_many(entries: GalleryEntries, max_megabytes: float) -> str:
    if entries.num_shown == entries.num_tested:
        return f"All {entries.num_tested} test images."
    reasons = []
    if entries.num_kept < entries.num_tested:
        reasons.append(
            f"the tests kept the maps of {entries.num_kept} (--num_kept): of each category the "
            "worst false alarms and misses, and a sample of each defect"
        )
    if entries.num_shown < entries.num_kept:
        reasons.append(
            f"the pictures of a page may take {max_megabytes:g} MB (--max_megabytes), mistakes "
            "first"
        )
    return f"{entries.num_shown} of {entries.num_tested} test images: {'; '.join(reasons)}."


def training(trainings: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the logged figures of each fit, losses apart from the others."""
    found = []
    for name, path in trainings.items():
        logged = read_curves(path)
        charts = {key: logged_chart(key, points, fit=name) for key, points in logged.items()}
        if charts:
            found.append({
                "name": name,
                "losses": [chart for key, chart in charts.items() if "loss" in key],
                "others": [chart for key, chart in charts.items() if "loss" not in key],
            })  # fmt: skip
    return found
