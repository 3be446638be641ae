import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from references import slow_ranking
from rich.console import Console
from sklearn.metrics import roc_auc_score

from omiad.errors import InputError
from omiad.metrics import (
    METRICS,
    AnomalyMetrics,
    ImageDetection,
    PixelDetection,
    Results,
    results_table,
)
from omiad.metrics.detection import MAX_PASSES
from omiad.types import Labels, Prediction


def batch_of(
    labels: list[bool], generator: torch.Generator, *, masked: bool = True
) -> tuple[Prediction, Labels]:
    """Return images whose defect is a bright square in the map."""
    count = len(labels)
    is_anomalous = torch.tensor(labels)
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    if masked:
        masks[is_anomalous, 2:5, 2:5] = True
    maps = torch.rand(count, 8, 8, generator=generator) + 0.6 * masks
    batch = Labels(
        is_anomalous=is_anomalous,
        masks=masks,
        has_mask=~is_anomalous | torch.tensor(masked),
        index=torch.arange(count),
    )
    return Prediction(maps.amax((1, 2)), maps), batch


def test_every_category_has_seven_figures_and_their_mean(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a", "b"])
    prediction, batch = batch_of([False, True] * 4, generator)
    metrics.update(prediction, batch, ["a", "a", "b", "b"] * 2)
    results = metrics.compute()
    for figures in results.categories.values():
        assert figures["mad"] == pytest.approx(sum(figures[key] for key in METRICS) / 7)
    rows = [0, 1, 4, 5]
    assert results.categories["a"]["pixel_auroc"] == pytest.approx(
        roc_auc_score(batch.masks[rows].flatten(), prediction.anomaly_map[rows].flatten())
    )
    assert set(results.n.values()) == {2}
    assert results.notes == {}


def test_batches_do_not_change_a_figure(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True, True, False, True], generator)
    whole = AnomalyMetrics(["a"])
    whole.update(prediction, batch, ["a"] * 5)
    parts = AnomalyMetrics(["a"])
    for rows in ([0, 1], [2, 3, 4]):
        parts.update(
            Prediction(*(x[rows] for x in prediction)),
            Labels(*(x[rows] for x in batch)),
            ["a"] * len(rows),
        )
    assert parts.compute().categories == whole.compute().categories


def test_a_category_without_masks_has_no_pixel_figures(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a", "b"])
    metrics.update(*batch_of([False, True], generator), ["a"] * 2)
    metrics.update(*batch_of([False, True], generator, masked=False), ["b"] * 2)
    results = metrics.compute()
    assert results.categories["b"]["image_auroc"] is not None
    assert results.categories["b"]["aupro"] is results.categories["b"]["mad"] is None
    assert "1 of 1 defective test images have no mask" in results.notes["b"]
    assert results.n["image_auroc"] == 2
    assert results.n["aupro"] == results.n["mad"] == 1
    assert results.mean["mad"] == results.categories["a"]["mad"]


def test_a_category_without_defects_has_no_figures(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([False, False], generator), ["a"] * 2)
    results = metrics.compute()
    assert set(results.mean.values()) == {None}
    assert "no defective test image" in results.notes["a"]


def test_a_category_without_normal_images_has_pixel_figures_only(
    generator: torch.Generator,
) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([True, True], generator), ["a"] * 2)
    figures = metrics.compute().categories["a"]
    assert figures["image_auroc"] is None
    assert figures["pixel_auroc"] is not None


def test_empty_masks_are_said_to_be_empty(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True], generator)
    metrics = AnomalyMetrics(["a"])
    metrics.update(prediction, batch._replace(masks=torch.zeros_like(batch.masks)), ["a"] * 2)
    assert "every mask is empty" in metrics.compute().notes["a"]


def test_a_score_that_is_no_number_is_refused(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True], generator)
    broken = prediction._replace(score=torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="A score of category 'a' is NaN"):
        AnomalyMetrics(["a"]).update(broken, batch, ["a"] * 2)


def test_metrics_reset_like_any_torchmetric(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True], generator)
    metrics: list[tuple[ImageDetection | PixelDetection, tuple[torch.Tensor, torch.Tensor]]] = [
        (ImageDetection(), (prediction.score, batch.is_anomalous)),
        (PixelDetection(), (prediction.anomaly_map, batch.masks)),
    ]
    for metric, inputs in metrics:
        metric.update(*inputs)
        before = metric.compute()
        metric.reset()
        metric.update(*inputs)
        assert metric.compute() == before


def test_the_table_has_a_row_for_each_category_and_explains_gaps(
    generator: torch.Generator,
) -> None:
    metrics = AnomalyMetrics(["a", "b"])
    metrics.update(*batch_of([False, True], generator), ["a"] * 2)
    metrics.update(*batch_of([False, False], generator), ["b"] * 2)
    table = results_table(metrics.compute())
    assert table.row_count == 4
    assert "b: no defective test image" in str(table.caption)


@pytest.mark.parametrize(
    ("source", "sentences"),
    [
        (None, ["pixel figures are exact to 0.003 of 100"]),
        ("uniad", ["pixel figures are exact to 0.003 of 100"]),
        (
            "dinomaly",
            [
                "estimated as the protocol's source does: aupro",
                "other pixel figures are exact to 0.003 of 100",
            ],
        ),
        (
            "ader",
            [
                "estimated as the protocol's source does: pixel_auroc, pixel_ap, pixel_f1_max, "
                "aupro",
                "other pixel figures are exact to 0.003 of 100",
            ],
        ),
    ],
)
def test_the_table_claims_no_bound_that_does_not_hold(
    source: str | None, sentences: list[str], generator: torch.Generator
) -> None:
    metrics = AnomalyMetrics(["a"], source=source)
    metrics.update(*batch_of([False, True] * 4, generator), ["a"] * 8)
    results = metrics.compute()
    results.bounds["a"]["aupro_0.05"] = 2.1e-5
    assert str(results_table(results).caption).splitlines() == sentences


def test_the_table_claims_no_bound_without_pixel_figures(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([False, True], generator, masked=False), ["a"] * 2)
    assert "exact" not in str(results_table(metrics.compute()).caption)


def test_every_reason_for_a_gap_is_named(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([True, True], generator, masked=False), ["a"] * 2)
    results = metrics.compute()
    assert set(results.categories["a"].values()) == {None}
    assert "no image figures" in results.notes["a"]
    assert "2 of 2 defective test images have no mask" in results.notes["a"]


def test_a_second_evaluation_knows_nothing_of_the_first(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([False, True], generator, masked=False), ["a"] * 2)
    assert "have no mask" in metrics.compute().notes["a"]
    metrics.update(*batch_of([False, True], generator), ["a"] * 2)
    results = metrics.compute()
    assert results.notes == {}
    assert results.n["mad"] == 1


def test_the_table_shows_percent_with_one_decimal(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a"])
    metrics.update(*batch_of([False, True], generator, masked=False), ["a"] * 2)
    results = metrics.compute()
    cells = [list(column.cells) for column in results_table(results).columns]
    assert cells[1][:2] == [f"{100 * results.mean['image_auroc']:.1f}"] * 2
    assert cells[7] == ["-", "-", "0"]  # AU-PRO: the category, the mean, categories behind it


def test_a_coarse_pass_is_followed_by_finer_ones_where_the_maps_can_be_had_again(
    generator: torch.Generator,
) -> None:
    prediction, batch = batch_of([False, True] * 6, generator)
    names = ["a", "a", "b", "b"] * 3
    exact = AnomalyMetrics(["a", "b"])
    exact.update(prediction, batch, names)
    expected = exact.compute()
    metrics = AnomalyMetrics(["a", "b"], max_bins=8)
    metrics.update(prediction, batch, names)
    results = metrics.compute(replay=lambda: metrics.update(prediction, batch, names))
    for name, row in results.bounds.items():
        assert 0 <= max(row.values()) <= 1e-4
        for key in METRICS:
            assert results.categories[name][key] == pytest.approx(
                expected.categories[name][key], abs=1e-4
            )
    once = AnomalyMetrics(["a", "b"], max_bins=8)
    once.update(prediction, batch, names)
    assert max(once.compute().bounds["a"].values()) > 1e-4


def test_no_pass_is_made_whose_counts_nobody_reads(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True] * 6, generator)
    metrics = AnomalyMetrics(["a"], tolerance=0, max_bins=1)
    passes = []

    def feed() -> None:
        passes.append(len(passes))
        metrics.update(prediction, batch, ["a"] * 12)

    feed()
    assert metrics.compute(replay=feed).bound > 0  # so many passes are not enough
    assert len(passes) == MAX_PASSES


def test_an_image_that_comes_twice_counts_once(generator: torch.Generator) -> None:
    prediction, batch = batch_of([False, True, True, False], generator)
    once, twice = AnomalyMetrics(["a"]), AnomalyMetrics(["a"])
    once.update(prediction, batch, ["a"] * 4)
    twice.update(prediction, batch, ["a"] * 4)
    twice.update(
        Prediction(*(x[:3] for x in prediction)), Labels(*(x[:3] for x in batch)), ["a"] * 3
    )
    assert twice.compute().categories == once.compute().categories


def test_operating_points_of_images_worked_by_hand() -> None:
    # Ranked: + + - + - - - - - - (three anomalies, seven normals).
    labels = torch.tensor([1, 1, 0, 1, 0, 0, 0, 0, 0, 0]).bool()
    metric = ImageDetection()
    metric.update(torch.arange(10, 0, -1), labels)
    figures = metric.compute()
    assert figures["image_fpr_at_num_anomalous"] == pytest.approx(1 / 7)  # one in the first three
    assert figures["image_fpr_at_recall_0.95"] == pytest.approx(1 / 7)
    assert figures["image_recall_at_fpr_0.01"] == pytest.approx(2 / 3)


def test_image_figures_equal_slow_definitions_on_scores_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = 1e6 + 1e-9 * (rng.normal(size=200) + labels).round(1)  # one float32
    metric = ImageDetection()
    metric.update(torch.from_numpy(scores), torch.from_numpy(labels))
    figures = metric.compute()
    for name, value in slow_ranking(scores, labels).items():
        assert figures[f"image_{name}"] == pytest.approx(value, abs=1e-12), name


def shared_by_all(results: Results) -> list[object]:
    """Return what each process must know in the end, the counts of every image included."""
    counts = [results.counts[name].read() for name in results.categories]
    images = [[each.index.tolist(), each.counts.tolist()] for each in counts]
    return [results.categories, results.notes, images]


def share_of(rank: int, folder: str) -> None:
    """Score a padded share of five images in one of two processes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    prediction, batch = batch_of([False, True] * 3, torch.Generator().manual_seed(0))
    metrics = AnomalyMetrics(["a", "b"])
    for i in ([0, 2, 4], [1, 3, 0])[rank]:  # "b" is scored by the first process alone
        row = slice(i, i + 1)
        name = "b" if i in (2, 4) else "a"
        metrics.update(
            Prediction(*(x[row] for x in prediction)), Labels(*(x[row] for x in batch)), [name]
        )
    results = metrics.compute()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(shared_by_all(results)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share_of, args=(str(tmp_path),), nprocs=2)
    prediction, batch = batch_of([False, True] * 3, torch.Generator().manual_seed(0))
    metrics = AnomalyMetrics(["a", "b"])
    rows = [0, 1, 2, 3, 4]
    metrics.update(
        Prediction(*(x[rows] for x in prediction)),
        Labels(*(x[rows] for x in batch)),
        ["a", "a", "b", "a", "b"],
    )
    results = metrics.compute()
    for rank in range(2):
        written = json.loads((tmp_path / f"{rank}.json").read_text())
        assert written == shared_by_all(results)


@pytest.mark.parametrize("name", ["pcb", "transistor_with_a_very_long_name_of_its_own"])
def test_a_terminal_of_80_columns_shows_every_figure_and_the_whole_name(
    name: str, generator: torch.Generator
) -> None:
    metrics = AnomalyMetrics([name, "b"])
    prediction, batch = batch_of([False, True], generator)
    perfect = Prediction(batch.is_anomalous.float(), batch.masks.float())
    metrics.update(perfect, batch, [name] * 2)
    metrics.update(prediction, batch, ["b"] * 2)
    console = Console(width=80, file=io.StringIO(), legacy_windows=False)
    console.print(results_table(metrics.compute(), steps="protocol of many steps; " * 9))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    headings = " ".join(" ".join(lines[:3]).split())
    assert headings.count("AUROC") == headings.count("F1max") == 2
    first = next(i for i, line in enumerate(lines) if "100.0" in line)
    assert lines[first].split()[1:] == ["100.0"] * 8
    assert name in "".join(line.partition(" 100.0")[0].strip() for line in lines[first : first + 4])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mean", "A category is called 'mean', as the row over all categories is"),
        ("n\udcff", r"The category 'n\\udcff' is not named in UTF-8. Rename its folder"),
    ],
)
def test_a_category_that_cannot_stand_in_results_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        AnomalyMetrics(["bolt", name])
