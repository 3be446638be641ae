"""The table of a terminal: what it shows, what it claims, and that it fits."""

import io

import pytest
import torch
from predicted import batch_of
from rich.console import Console

from omiad.metrics import AnomalyMetrics, Results, results_table
from omiad.types import Prediction


def measured(
    generator: torch.Generator, *, source: str | None = None, masked: bool = True
) -> Results:
    metrics = AnomalyMetrics(["a"], source=source)
    metrics.update(*batch_of([False, True] * 4, generator, masked=masked), ["a"] * 8)
    return metrics.compute()


def test_figures_are_percent_with_one_decimal_and_gaps_are_explained(
    generator: torch.Generator,
) -> None:
    results = measured(generator, masked=False)
    table = results_table(results)
    cells = [list(column.cells) for column in table.columns]
    assert cells[1][:2] == [f"{100 * results.mean['image_auroc']:.1f}"] * 2
    assert cells[7] == ["-", "-", "0"]  # AU-PRO: the category, the mean, categories behind it
    assert "a: 4 of 4 defective test images have no mask" in str(table.caption)
    assert "exact" not in str(table.caption)


@pytest.mark.parametrize(
    ("source", "estimated"),
    [
        (None, ""),
        ("uniad", ""),
        ("dinomaly", "aupro"),
        ("ader", "pixel_auroc, pixel_ap, pixel_f1_max, aupro"),
    ],
)
def test_the_table_claims_no_bound_that_does_not_hold(
    source: str | None, estimated: str, generator: torch.Generator
) -> None:
    results = measured(generator, source=source)
    results.bounds["a"]["aupro_0.05"] = 2.1e-5
    lines = str(results_table(results).caption).splitlines()
    exact = "pixel figures are exact to 0.003 of 100"
    if estimated:
        assert lines[0].endswith(f": {estimated}")
        assert lines[1] == f"other {exact}"
    else:
        assert lines == [exact]


@pytest.mark.parametrize("name", ["pcb", "transistor_with_an_exceptionally_long_name"])
def test_a_terminal_of_80_columns_shows_every_figure_and_the_whole_name(
    name: str, generator: torch.Generator
) -> None:
    metrics = AnomalyMetrics([name, "b"])
    prediction, labels = batch_of([False, True], generator)
    perfect = Prediction(labels.is_anomalous.float(), labels.masks.float())
    metrics.update(perfect, labels, [name] * 2)
    metrics.update(prediction, labels, ["b"] * 2)
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(results_table(metrics.compute(), steps="protocol of many steps; " * 9))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    headings = " ".join(" ".join(lines[:3]).split())
    assert headings.count("AUROC") == headings.count("F1-max") == 2
    first = next(i for i, line in enumerate(lines) if "100.0" in line)
    assert lines[first].split()[1:] == ["100.0"] * 8
    assert name in "".join(line.partition(" 100.0")[0].strip() for line in lines[first : first + 6])
