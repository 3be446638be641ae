"""Testing a checkpoint: what it is scored with, and when it is calibrated again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from tiny import REMEMBERING, Data, Fit, amdm, same, saved, trainer_of, weights

from omiad import Detector, OmiADModule
from omiad.calibration import is_calibrated
from omiad.callbacks import LastCheckpoint
from omiad.errors import InputError
from omiad.modules import DecoderModule, DetectionModule
from omiad.scoring import Scoring

Tested = Callable[..., Detector]


@pytest.fixture
def tested(data: Data, tmp_path: Path) -> Tested:
    def run(path: Path, **changes: object) -> Detector:
        module = DetectionModule.load(path, **changes)  # type: ignore[arg-type]
        other = data(seed=5)  # other backbone weights, if it built one
        trainer_of(tmp_path, 1).test(module, datamodule=other, verbose=False)
        assert other.extractor is module.detector.extractor
        return module.detector

    return run


def test_a_test_builds_one_network_and_keeps_the_calibration(teacher: Path, tested: Tested) -> None:
    detector, stored = tested(teacher), Detector.load(teacher)
    module = DetectionModule.load(teacher)
    assert [name for name, _ in module.named_children()] == ["detector"]
    assert all(map(torch.equal, detector.state_dict().values(), stored.state_dict().values()))


@pytest.mark.parametrize(
    "change",
    [
        {"t_init": 300},
        {"num_steps": 3},
        {"scoring": replace(REMEMBERING, residual_weight=0.2)},
        {"weights": "raw"},
    ],
)
def test_other_settings_than_the_checkpoints_are_calibrated_for(
    teacher: Path, tested: Tested, change: dict[str, object]
) -> None:
    detector, stored = tested(teacher, **change), Detector.load(teacher)
    assert not torch.equal(detector.memory.patches, stored.memory.patches)
    assert not torch.equal(detector.map_range, stored.map_range)
    assert is_calibrated(detector)


@pytest.mark.parametrize("change", [{"blur_sigma": 2.0}, {"memory_size": 0}])
def test_another_scoring_gets_its_own_scale_and_leaves_the_memory(
    teacher: Path, tested: Tested, change: dict[str, object]
) -> None:
    detector, stored = (
        tested(teacher, scoring=replace(REMEMBERING, **change)),
        Detector.load(teacher),
    )
    assert not torch.equal(detector.map_range, stored.map_range)
    if detector.scoring.memory_size:
        assert torch.equal(detector.memory.patches, stored.memory.patches)


@pytest.mark.parametrize("size", [0, 40])
def test_a_test_with_a_memory_of_each_product_fills_it(
    teacher: Path, tested: Tested, size: int
) -> None:
    scoring = Scoring(pool_size=4, memory_size=size, memory="product")
    memory = tested(teacher, scoring=scoring).product_memory
    assert memory is not None
    assert memory.names == ["bottle", "cable"]
    assert memory.patches.shape[:2] == (2, size)


def test_a_memory_of_each_product_travels_with_the_checkpoint(
    fit: Fit, data: Data, tmp_path: Path
) -> None:
    module = amdm(scoring=Scoring(pool_size=4, memory_size=40, memory="product"))
    path = saved(fit(module, 1))
    features = torch.stack(list(data().features("train")))
    detector = Detector.load(path)
    expected = module.detector.score_features(features).score
    assert torch.equal(detector.score_features(features).score, expected)
    unremembered = Detector.load(path, scoring=vars(Scoring(pool_size=4)))
    assert unremembered.product_memory is None


def test_an_earlier_t_init_leaves_normal_pixels_within_the_scale(
    teacher: Path, tested: Tested, data: Data
) -> None:
    # With the scale of t_init 500 every pixel of t_init 50 would lie below it.
    detector = tested(teacher, t_init=50, scoring=Scoring(pool_size=4))
    maps = detector.score_features(torch.stack(list(data().features("train")))).anomaly_map
    low, high = detector.map_range.tolist()
    assert 0.1 < ((maps > low) & (maps < high)).float().mean() <= 1.0
    assert (maps > high).float().mean() < 0.01


def test_a_module_tested_after_its_fit_has_the_memory_of_its_last_weights(
    data: Data, fit: Fit, tmp_path: Path
) -> None:
    module, same_data = amdm(scoring=REMEMBERING), data()
    trainer = fit(module, 6, LastCheckpoint(every_n_steps=3), datamodule=same_data)
    trainer.test(module, datamodule=same_data, verbose=False)
    assert is_calibrated(module.detector)
    stored = Detector.load(tmp_path / "checkpoints" / "last.ckpt")
    assert torch.equal(module.detector.memory.patches, stored.memory.patches)


def test_a_checkpoint_of_a_run_in_progress_is_calibrated_briefly_and_anew_by_a_test(
    fit: Fit, tested: Tested, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omiad.calibration.NUM_BRIEF", 4)
    paths: list[Path] = []

    class Saver(LastCheckpoint):
        def save(self, trainer: Trainer) -> Path:
            path = super().save(trainer)
            paths.append(path.rename(path.with_name(f"{len(paths)}.ckpt")))
            return paths[-1]

    fit(amdm(scoring=REMEMBERING), 6, Saver(every_n_steps=3))
    early, last = Detector.load(paths[0]), Detector.load(paths[-1])
    assert len(early.memory.patches) == 2 * 2 * 64  # two images of each category
    assert len(last.memory.patches) == 2 * 4 * 64
    assert not is_calibrated(early)
    assert is_calibrated(early, brief=True)
    assert len(tested(paths[0]).memory.patches) == 2 * 4 * 64


def test_other_features_than_the_models_are_refused(
    teacher: Path, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--data\.image_size is 64.* 32"):
        trainer_of(tmp_path, 1).test(DetectionModule.load(teacher), datamodule=data(image_size=64))


@pytest.mark.parametrize("setting", [{"t_innit": 500}, {"num_noise_draws": 0}, {"eta": 1.5}])
def test_an_impossible_setting_is_refused(teacher: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        Detector.load(teacher, **setting)


def test_raw_weights_are_the_weights_as_trained(student: tuple[OmiADModule, Path]) -> None:
    module, path = student
    raw = DetectionModule.load(path, weights="raw").detector
    averaged = DetectionModule.load(path).detector
    assert same(weights(raw.denoiser), weights(module.generator))
    assert same(weights(averaged.denoiser), weights(module.detector.denoiser))
    assert not same(weights(raw.denoiser), weights(averaged.denoiser))


def test_raw_weights_that_a_checkpoint_does_not_hold_are_refused(fit: Fit, teacher: Path) -> None:
    path = saved(fit(DecoderModule(str(teacher), width=8)))
    with pytest.raises(InputError, match="weights raw"):
        DetectionModule.load(path, weights="raw")


def test_a_test_scores_in_the_precision_of_the_checkpoint(fit: Fit, tested: Tested) -> None:
    path = saved(fit(amdm(), 2, precision="bf16-mixed"))
    detector, predicting = tested(path), Detector.load(path)
    assert detector.extractor.autocast_dtype == torch.bfloat16
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(detector(images).score, predicting(images).score)


def test_more_noise_draws_average_maps(teacher: Path) -> None:
    one, two = (Detector.load(teacher, num_noise_draws=n) for n in (1, 2))
    features = torch.zeros(1, one.extractor.num_channels, 8, 8)
    assert torch.equal(two.noise[0], one.noise[0])
    assert not torch.equal(two.score_features(features).score, one.score_features(features).score)


def test_a_stochastic_samplers_score_does_not_depend_on_the_batch(
    teacher: Path, generator: torch.Generator
) -> None:
    scoring = vars(Scoring(pool_size=4))
    detector = Detector.load(teacher, t_init=6, num_steps=6, eta=1.0, scoring=scoring)
    features = torch.randn(3, detector.extractor.num_channels, 8, 8, generator=generator)
    whole = detector.score_features(features).score
    parts = torch.cat([detector.score_features(x).score for x in features.split(2)])
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)
    deterministic = Detector.load(teacher, t_init=6, num_steps=6, scoring=scoring)
    assert not torch.allclose(deterministic.score_features(features).score, whole)
