import pytest
import torch
from sklearn.metrics import roc_auc_score

from omiad.errors import InputError
from omiad.metrics import METRICS, AnomalyMetrics, ImageDetection, PixelDetection, results_table
from omiad.types import ImageBatch, Prediction


def batch_of(
    labels: list[bool], generator: torch.Generator, *, masked: bool = True
) -> tuple[Prediction, ImageBatch]:
    """Return images whose defect is a bright square in the map."""
    count = len(labels)
    is_anomalous = torch.tensor(labels)
    masks = torch.zeros(count, 8, 8, dtype=torch.bool)
    if masked:
        masks[is_anomalous, 2:5, 2:5] = True
    maps = torch.rand(count, 8, 8, generator=generator) + 0.6 * masks
    batch = ImageBatch(
        images=torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
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
            ImageBatch(*(x[rows] for x in batch)),
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
    for metric, inputs in (
        (ImageDetection(), (prediction.score, batch.is_anomalous)),
        (PixelDetection(), (prediction.anomaly_map, batch.masks)),
    ):
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
