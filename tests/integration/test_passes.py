"""Tests of a model with more pixels than bins: the second pass, masks, files and processes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from tiny import amdm, data_of, trainer_of

from omiad.callbacks import Evaluation
from omiad.data import FeatureDataModule
from omiad.data.masks import read_mask
from omiad.errors import InputError
from omiad.evaluation import evaluate
from omiad.evaluation.evaluate import EvaluatedData
from omiad.evaluation.maps import read_scores
from omiad.modules import DetectionModule
from omiad.report import read_gallery
from omiad.scoring import Scoring

SIZE = 192
"""Six images of this side hold more distinct scores than a category has bins."""


@pytest.fixture(scope="module")
def data(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureDataModule:
    return data_of(mvtec_root, tmp_path_factory.mktemp("cache"), image_size=SIZE)


@pytest.fixture(scope="module")
def checkpoint(data: FeatureDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "last.ckpt"
    trainer = trainer_of(path.parent, 1)
    trainer.fit(amdm(), datamodule=data)
    trainer.save_checkpoint(path)
    return path


def results_of(
    evaluation: Evaluation,
    module: DetectionModule,
    data: FeatureDataModule,
    folder: Path,
    **options: object,
) -> dict[str, Any]:
    trainer = trainer_of(folder, 1, callbacks=[evaluation], **options)
    trainer.test(module, datamodule=data, verbose=False)
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def mask_of(image: Path, side: int) -> np.ndarray:
    mask = image.parents[2] / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
    if not mask.is_file():
        return np.zeros((side, side), bool)
    return read_mask([mask], side, image=image).numpy()


def assert_bounded(record: dict[str, Any], root: Path, maps: Path) -> None:
    """Compare AUROC and AP of maps on disk with scikit-learn's."""
    for category in ("bottle", "cable"):
        images = sorted(root.glob(f"{category}/test/*/*.png"))
        files = [(maps / image.relative_to(root)).with_suffix(".npy") for image in images]
        scores = np.stack([np.load(file) for file in files])
        truth = np.stack([mask_of(image, scores.shape[-1]) for image in images])
        exact = {"pixel_auroc": roc_auc_score, "pixel_ap": average_precision_score}
        for name, figure in exact.items():
            error = abs(
                record["categories"][category][name] - figure(truth.ravel(), scores.ravel())
            )
            assert error <= record["bounds"][category][name] + 1e-12


def largest_bound(record: dict[str, Any], category: str) -> float:
    return float(max(record["bounds"][category].values()))


def test_a_test_scores_the_images_once_more_if_its_figures_are_not_exact_enough(
    mvtec_root: Path, data: FeatureDataModule, checkpoint: Path, tmp_path: Path
) -> None:
    records = {}
    for tolerance in (1, 0):
        pictures = 0 if tolerance else 2
        evaluation = Evaluation(tolerance=tolerance, save_maps=True, num_in_panel=pictures)
        folder, module = tmp_path / str(tolerance), DetectionModule.load(checkpoint)
        records[tolerance] = results_of(evaluation, module, data, folder)
        assert_bounded(records[tolerance], mvtec_root, folder / "maps")
    for category in ("bottle", "cable"):
        assert largest_bound(records[0], category) == 0 < largest_bound(records[1], category)
    assert records[0]["notes"] == {}
    names = [sample.name(mvtec_root) for sample in data.samples("test")]
    scores = read_scores(tmp_path / "0" / "scores.csv", names)
    is_bottle = torch.tensor([name.startswith("bottle") for name in names])
    labels = np.array([sample.is_anomalous for sample in data.samples("test")])
    expected = roc_auc_score(labels[is_bottle], scores[is_bottle])
    assert records[0]["categories"]["bottle"]["image_auroc"] == pytest.approx(expected)
    panels = (tmp_path / "0" / "panels").iterdir()
    assert sorted(path.stem for path in panels) == ["bottle", "cable"]


def test_the_maps_of_a_test_evaluate_to_its_figures_with_masks_as_the_protocol_says(
    mvtec_root: Path, data: FeatureDataModule, checkpoint: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"protocol": "dinomaly", "image_size": SIZE, "blur_sigma": 0.0}
    evaluation = Evaluation(**options, save_maps=True)
    results_of(evaluation, DetectionModule.load(checkpoint), data, tmp_path / "run")
    maps, root = str(tmp_path / "run" / "maps"), EvaluatedData(str(mvtec_root))
    evaluate(maps, root, output=str(tmp_path / "dinomaly.json"), **options)
    # With nearest instead of bilinear masks, which makes them larger.
    nearest = {"image_size": SIZE, "top_fraction": 0.01}
    evaluate(maps, root, output=str(tmp_path / "uniad.json"), **nearest)
    test, same, other = (
        json.loads((tmp_path / name).read_text())["categories"]
        for name in ("run/results.json", "dinomaly.json", "uniad.json")
    )
    assert test == same
    assert test["bottle"]["pixel_ap"] != other["bottle"]["pixel_ap"]


def test_defects_that_share_a_bin_with_normal_pixels_are_separated_in_a_second_pass(
    mvtec_root: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for image in sorted(mvtec_root.glob("*/test/*/*.png")):
        scores, mask = rng.random((224, 224), np.float32), mask_of(image, 224)
        scores[mask] = 2
        if not mask.any() and image.stem == "000":
            scores[:40] = np.nextafter(np.float32(2), np.float32(3))
        path = (tmp_path / "maps" / image.relative_to(mvtec_root)).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    records = []
    for tolerance in (1, 1e-4):
        path = tmp_path / f"{tolerance}.json"
        given = str(tmp_path / "maps"), EvaluatedData(str(mvtec_root))
        evaluate(*given, output=str(path), tolerance=tolerance, num_resamples=0)
        records.append(json.loads(path.read_text()))
        assert_bounded(records[-1], mvtec_root, tmp_path / "maps")
    for category in ("bottle", "cable"):
        bounds = [record["bounds"][category]["pixel_ap"] for record in records]
        assert bounds[0] > 0.1
        assert bounds[1] <= 1e-4


def test_a_second_pass_sees_no_more_batches_than_the_first(
    data: FeatureDataModule, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omiad.data.datamodule.BATCH_SIZE", 5)  # of six bottles
    module = DetectionModule.load(checkpoint)
    record = results_of(Evaluation(tolerance=0), module, data, tmp_path, limit_test_batches=1)
    assert not any("maps changed" in note for note in record["notes"].values())
    assert largest_bound(record, "bottle") == 0


@pytest.mark.parametrize(
    ("options", "blur_sigma", "message"),
    [
        ({"protocol": "dinomaly"}, 0, "392 x 392 pixels cut from 448 x 448"),
        ({"image_size": 64}, 0, "64 x 64 pixels"),
        ({"blur_sigma": 4.0}, 2, "--blur_sigma 0"),
    ],
)
def test_a_protocol_that_does_not_fit_the_model_is_refused(
    options: dict[str, Any], blur_sigma: float, message: str,
    data: FeatureDataModule, checkpoint: Path, tmp_path: Path,
) -> None:  # fmt: skip
    scoring = Scoring(blur_sigma=blur_sigma, pool_size=4)
    module = DetectionModule.load(checkpoint, scoring=scoring)
    with pytest.raises(InputError, match=message):
        results_of(Evaluation(**options), module, data, tmp_path)


@pytest.mark.slow
# Lightning's advice, for samplers that repeat images.
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_processes_with_unequal_shares_write_the_results_of_one(
    data: FeatureDataModule, checkpoint: Path, tmp_path: Path
) -> None:
    several = {"strategy": "ddp_fork", "devices": 5}  # of twelve images
    folders = tmp_path / "one", tmp_path / "five"
    records = []
    for folder, options in zip(folders, ({}, several), strict=True):
        evaluation = Evaluation(tolerance=0, save_maps=True, num_kept=6)
        module = DetectionModule.load(checkpoint)
        records.append(results_of(evaluation, module, data, folder, **options))
    one, five = records
    for key in ("notes", "n"):
        assert five[key] == one[key]
    for category, figures in one["categories"].items():
        assert five["categories"][category] == pytest.approx(figures, abs=1e-4)
    names = [sorted(path.relative_to(f) for path in f.rglob("*.npy")) for f in folders]
    assert names[0] == names[1]
    assert len(names[0]) == 12
    galleries = [read_gallery(folder / "results.gallery.npz") for folder in folders]
    for category, kept in galleries[0].items():
        assert galleries[1][category].name.tolist() == kept.name.tolist()
        np.testing.assert_allclose(galleries[1][category].level, kept.level, atol=1)
