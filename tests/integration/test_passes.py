"""Maps of more pixels than a category has bins: a second pass where it is needed, masks resized."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from sklearn.metrics import average_precision_score, roc_auc_score

from omiad.callbacks import Evaluation
from omiad.cli import main
from omiad.data import FeatureDataModule
from omiad.data.images import read_mask
from omiad.modules import AMDMModule
from omiad.networks import UNet
from omiad.report import read_gallery
from omiad.types import Prediction, ScoringBatch

SIZE = 192
"""Six images of this side hold more distinct scores than a category has bins."""


def build_module(kind: type[AMDMModule]) -> AMDMModule:
    network = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
    return kind(network, feature_norm="channel", t_init=500, num_steps=1)


def build_trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **options,
    )


@pytest.fixture(scope="module")
def data(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureDataModule:
    return FeatureDataModule(
        str(mvtec_root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        image_size=SIZE,
        feature_size=8,
        cache_dir=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="module")
def checkpoint(data: FeatureDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "last.ckpt"
    trainer = build_trainer(path.parent)
    trainer.fit(build_module(AMDMModule), datamodule=data)
    trainer.save_checkpoint(path)
    return path


def exact_figures(root: Path, maps: Path, category: str) -> dict[str, float]:
    """Return AUROC and AP of maps on disk by scikit-learn."""
    scores, truth = [], []
    for image in sorted(root.glob(f"{category}/test/*/*.png")):
        scores.append(np.load((maps / image.relative_to(root)).with_suffix(".npy")))
        mask = root / category / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        is_bad = mask.is_file()
        side = len(scores[-1])
        truth.append(
            read_mask(mask, side, image=image).numpy() if is_bad else np.zeros((side, side), bool)
        )
    flat = np.ravel(truth), np.ravel(scores)
    return {
        "pixel_auroc": float(roc_auc_score(*flat)),
        "pixel_ap": float(average_precision_score(*flat)),
    }


def largest_bound(record: dict, category: str) -> float:  # type: ignore[type-arg]
    return float(max(record["bounds"][category].values()))


def test_a_test_scores_the_images_once_more_until_its_figures_are_exact(
    mvtec_root: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = {}
    for tolerance in (1, 0):
        run = [f"--ckpt_path={checkpoint}", f"--run_dir={tmp_path / str(tolerance)}"]
        quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        main(["test", *run, *quiet, f"--tolerance={tolerance}", "--save_maps"])
        printed = " ".join(capsys.readouterr().out.split())
        assert ("scoring the images once more" in printed) == (tolerance == 0)
        records[tolerance] = json.loads((tmp_path / str(tolerance) / "results.json").read_text())
    for category in ("bottle", "cable"):
        assert largest_bound(records[1], category) > 0
        assert largest_bound(records[0], category) == 0
        exact = exact_figures(mvtec_root, tmp_path / "0" / "maps", category)
        for name, value in exact.items():
            figure, bound = (records[1][key][category][name] for key in ("categories", "bounds"))
            assert abs(figure - value) <= bound + 1e-12
            assert records[0]["categories"][category][name] == pytest.approx(value, abs=1e-12)
    assert records[0]["notes"] == {}


def test_masks_are_resized_as_the_protocol_says(
    mvtec_root: Path, checkpoint: Path, tmp_path: Path
) -> None:
    options = ["--protocol=dinomaly", f"--image_size={SIZE}", "--blur_sigma=0"]
    given = [f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu", "--save_maps"]
    main(["test", *given, f"--run_dir={tmp_path / 'run'}", *options])
    maps = [f"--maps={tmp_path / 'run' / 'maps'}", f"--data.root={mvtec_root}"]
    main(["evaluate", *maps, f"--output={tmp_path / 'dinomaly.json'}", *options])
    # The same, but for masks that are nearest instead of bilinear, which makes them larger.
    nearest = [f"--image_size={SIZE}", "--top_fraction=0.01"]
    main(["evaluate", *maps, f"--output={tmp_path / 'uniad.json'}", *nearest])
    tested, same, other = (
        json.loads((tmp_path / name).read_text())["categories"]
        for name in ("run/results.json", "dinomaly.json", "uniad.json")
    )
    assert tested == same
    assert tested["bottle"]["pixel_ap"] != other["bottle"]["pixel_ap"]


class Unsteady(AMDMModule):
    """A model whose maps are others each time, as by kernels that add in any order."""

    def test_step(self, batch: ScoringBatch, batch_idx: int) -> Prediction:
        score, maps = super().test_step(batch, batch_idx)
        return Prediction(score, maps * (1 + 1e-4 * torch.rand(maps.shape)))


def test_maps_that_change_from_pass_to_pass_leave_the_first_ones_figures_and_bounds(
    mvtec_root: Path, data: FeatureDataModule, checkpoint: Path, tmp_path: Path
) -> None:
    evaluation = Evaluation(tolerance=0, save_maps=True)
    build_trainer(tmp_path, evaluation).test(
        build_module(Unsteady), datamodule=data, ckpt_path=checkpoint, verbose=False
    )
    record = json.loads((tmp_path / "results.json").read_text())
    for category in ("bottle", "cable"):
        assert "maps changed from pass to pass" in record["notes"][category]
        assert largest_bound(record, category) > 0
        exact = exact_figures(mvtec_root, tmp_path / "maps", category)  # of the first pass
        for name, value in exact.items():
            error = abs(record["categories"][category][name] - value)
            assert error <= record["bounds"][category][name] + 1e-12


def test_defects_that_share_a_bin_with_normal_pixels_are_told_apart_in_a_second_pass(
    mvtec_root: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for image in sorted(mvtec_root.glob("*/test/*/*.png")):
        scores = rng.random((224, 224), np.float32)
        category = image.parents[2]
        mask = category / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
        if mask.is_file():
            scores[read_mask(mask, 224, image=image).numpy()] = 2
        elif image.stem == "000":
            scores[:40] = np.nextafter(np.float32(2), np.float32(3))
        path = (tmp_path / "maps" / image.relative_to(mvtec_root)).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    given = [f"--maps={tmp_path / 'maps'}", f"--data.root={mvtec_root}", "--num_resamples=0"]
    for name, options in (("first", ["--tolerance=1"]), ("second", [])):
        main(["evaluate", *given, f"--output={tmp_path / name}.json", *options])
    first, second = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("first", "second"))
    for category in ("bottle", "cable"):
        exact = exact_figures(mvtec_root, tmp_path / "maps", category)["pixel_ap"]
        ap = [record["categories"][category]["pixel_ap"] for record in (first, second)]
        bound = [record["bounds"][category]["pixel_ap"] for record in (first, second)]
        assert bound[0] > 0.1
        assert bound[1] <= 1e-4
        assert abs(ap[0] - exact) <= bound[0]
        assert abs(ap[1] - exact) <= bound[1] + 1e-12


def test_a_second_pass_sees_no_more_batches_than_the_first(
    data: FeatureDataModule, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omiad.data.datamodule.BATCH_SIZE", 5)  # of six bottles
    trainer = build_trainer(tmp_path, Evaluation(tolerance=0), limit_test_batches=1)
    trainer.test(build_module(AMDMModule), datamodule=data, ckpt_path=checkpoint, verbose=False)
    record = json.loads((tmp_path / "results.json").read_text())
    assert not any("maps changed" in note for note in record["notes"].values())
    assert largest_bound(record, "bottle") == 0


@pytest.mark.slow
# Lightning's advice, for samplers that repeat images.
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_processes_with_unequal_shares_leave_the_results_of_one(
    data: FeatureDataModule, checkpoint: Path, tmp_path: Path
) -> None:
    several = {"strategy": "ddp_fork", "devices": 5}  # of twelve images
    for name, options in (("one", {}), ("five", several)):
        callback = Evaluation(tolerance=0, save_maps=True, num_kept=6)
        build_trainer(tmp_path / name, callback, **options).test(
            build_module(AMDMModule), datamodule=data, ckpt_path=checkpoint, verbose=False
        )
    one, five = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "five"))
    for key in ("notes", "n"):
        assert five[key] == one[key]
    for category, figures in one["categories"].items():
        assert five["categories"][category] == pytest.approx(figures, abs=1e-4)
    names = [
        sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.npy"))
        for n in ("one", "five")
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 12
    galleries = [read_gallery(tmp_path / n / "results.gallery.npz") for n in ("one", "five")]
    for category, kept in galleries[0].items():
        assert galleries[1][category].name.tolist() == kept.name.tolist()
        np.testing.assert_allclose(galleries[1][category].level, kept.level, atol=1)
