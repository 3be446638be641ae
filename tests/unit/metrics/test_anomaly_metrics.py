"""The figures of a whole data set: categories, gaps, passes and processes."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
import torchmetrics
from predicted import batch_of
from sklearn.metrics import roc_auc_score

from omiad.errors import InputError
from omiad.metrics import METRICS, AnomalyMetrics, Results
from omiad.types import Labels, Prediction


def some(rows: list[int], prediction: Prediction, labels: Labels) -> tuple[Prediction, Labels]:
    return Prediction(*(x[rows] for x in prediction)), Labels(*(x[rows] for x in labels))


def test_every_category_has_seven_figures_and_their_mean(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a", "b"])
    prediction, labels = batch_of([False, True] * 4, generator)
    metrics.update(prediction, labels, ["a", "a", "b", "b"] * 2)
    results = metrics.compute()
    for figures in results.categories.values():
        assert figures["mad"] == pytest.approx(sum(figures[key] for key in METRICS) / 7)
    rows = [0, 1, 4, 5]
    assert results.categories["a"]["pixel_auroc"] == pytest.approx(
        roc_auc_score(labels.masks[rows].flatten(), prediction.anomaly_map[rows].flatten())
    )
    assert set(results.n.values()) == {2}
    assert results.notes == {}


def test_it_is_a_metric_of_torchmetrics_that_starts_anew_after_a_reset(
    generator: torch.Generator,
) -> None:
    metrics = AnomalyMetrics(["a"], max_bins=50)
    assert isinstance(metrics, torchmetrics.Metric)
    first, second = (batch_of([False, True] * 3, generator) for _ in range(2))
    computed = []
    for given in (first, second, first):
        metrics.update(*given, ["a"] * 6)
        replay = partial(metrics.update, *given, ["a"] * 6)
        computed.append(metrics.compute(replay=replay))
        assert metrics.compute(replay=replay).as_record() == computed[-1].as_record()
        metrics.reset()
    records = [results.as_record() for results in computed]
    assert records[0] == records[2] != records[1]
    assert [len(results.images["a"].index) for results in computed] == [6, 6, 6]


def test_neither_batches_nor_repeats_nor_figures_in_between_change_a_figure(
    generator: torch.Generator,
) -> None:
    given = batch_of([False, True, True, False, True], generator)
    whole, parts = AnomalyMetrics(["a"]), AnomalyMetrics(["a"])
    whole.update(*given, ["a"] * 5)
    for rows in ([0, 1], [2, 3, 4], [0, 2, 1]):
        parts.update(*some(rows, *given), ["a"] * len(rows))
        last = parts.compute()
    assert shared_by_all(last) == shared_by_all(whole.compute())


def test_means_are_those_of_the_categories_that_have_a_figure(generator: torch.Generator) -> None:
    metrics = AnomalyMetrics(["a", "b"])
    metrics.update(*batch_of([False, True], generator), ["a"] * 2)
    metrics.update(*batch_of([False, True], generator, masked=False), ["b"] * 2)
    results = metrics.compute(replay=pytest.fail)
    assert results.categories["b"]["image_auroc"] is not None
    assert results.categories["b"]["aupro"] is results.categories["b"]["mad"] is None
    assert results.n["image_auroc"] == 2
    assert results.n["aupro"] == results.n["mad"] == 1
    assert results.mean["mad"] == results.categories["a"]["mad"]


@pytest.mark.parametrize(
    ("anomalous", "masked", "missing", "note"),
    [
        ([], True, "all", "no defective test image"),
        ([False, False], True, "all", "no defective test image"),
        ([True, True], True, "image", "no normal test image"),
        ([True, True], False, "all", "no normal test image.* 2 of 2 defective test images have no"),
        ([False, True], False, "pixel", "1 of 1 defective test images have no mask"),
        ([False, True], None, "pixel", "every mask is empty"),
    ],
)
def test_a_gap_has_its_reason(
    anomalous: list[bool], masked: bool | None, missing: str, note: str, generator: torch.Generator
) -> None:
    metrics = AnomalyMetrics(["a", "other"])
    metrics.update(*batch_of([False, True], generator), ["other"] * 2)
    if anomalous:
        prediction, labels = batch_of(anomalous, generator, masked=bool(masked))
        known = labels.has_mask if masked is not None else torch.ones_like(labels.has_mask)
        metrics.update(prediction, labels._replace(has_mask=known), ["a"] * 2)
    results = metrics.compute()
    is_missing = {key: value is None for key, value in results.categories["a"].items()}
    del is_missing["mad"]
    of_pixels = {key: not key.startswith("image") for key in METRICS}
    assert is_missing == {
        key: missing == "all" or of_pixels[key] == (missing == "pixel") for key in METRICS
    }
    assert re.search(note, results.notes["a"])


def test_a_score_that_is_not_a_number_is_refused(generator: torch.Generator) -> None:
    prediction, labels = batch_of([False, True], generator)
    broken = prediction._replace(score=torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="category 'a' is NaN"):
        AnomalyMetrics(["a"]).update(broken, labels, ["a"] * 2)


@pytest.mark.parametrize(
    ("name", "tolerance", "message"),
    [
        ("n\udcff", 0, r"category 'n\\udcff' is not named in UTF-8"),
        ("nut", -1, "tolerance must not be negative, but got -1"),
        ("nut", float("nan"), "tolerance .* got nan"),
    ],
)
def test_impossible_names_and_tolerances_are_refused(
    name: str, tolerance: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        AnomalyMetrics(["bolt", name], tolerance=tolerance)


def test_a_coarse_pass_is_followed_by_one_finer_pass_of_the_categories_that_need_it(
    generator: torch.Generator,
) -> None:
    given, names = batch_of([False, True] * 6, generator), ["a", "a", "b", "b"] * 3
    exact = AnomalyMetrics(["a", "b"])
    exact.update(*given, names)
    expected = exact.compute().categories
    metrics, passes = AnomalyMetrics(["a", "b"], max_bins=100), []
    metrics.update(*given, names)
    results = metrics.compute(replay=lambda: passes.append(metrics.update(*given, names)))
    assert len(passes) == 1
    for name, row in results.bounds.items():
        for key in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"):
            assert abs(results.categories[name][key] - expected[name][key]) <= row[key] + 1e-6
    metrics.reset()
    metrics.update(*given, names)
    once = metrics.compute()
    assert once.bound > results.bound
    # Maps that differ in the second pass leave the figures of the first.
    other = given[0]._replace(anomaly_map=1 - given[0].anomaly_map), given[1]
    metrics.reset()
    metrics.update(*given, names)
    changed = metrics.compute(replay=lambda: metrics.update(*other, names))
    assert "maps changed from pass to pass" in changed.notes["a"]
    assert (changed.categories, changed.bounds) == (once.categories, once.bounds)


def shared_by_all(results: Results) -> list[object]:
    """Return what every process must know in the end, the counts of every image included."""
    counts = [counts.read().tolist() for counts in results.counts.values()]
    images = [images.index.tolist() for images in results.images.values()]
    return [results.categories, results.notes, images, counts]


def share_of(rank: int, folder: str) -> None:
    """Score a padded share of five images in one of two processes."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    given = batch_of([False, True] * 3, torch.Generator().manual_seed(0))
    metrics = AnomalyMetrics(["a", "b"])
    for i in ([0, 2, 4], [1, 3, 0])[rank]:  # the first process alone scores "b"
        metrics.update(*some([i], *given), ["b" if i in (2, 4) else "a"])
    results = metrics.compute()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(shared_by_all(results)))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(share_of, args=(str(tmp_path),), nprocs=2)
    given = batch_of([False, True] * 3, torch.Generator().manual_seed(0))
    metrics = AnomalyMetrics(["a", "b"])
    metrics.update(*some([0, 1, 2, 3, 4], *given), ["a", "a", "b", "a", "b"])
    results = metrics.compute()
    for rank in range(2):
        written = json.loads((tmp_path / f"{rank}.json").read_text())
        assert written == shared_by_all(results)
