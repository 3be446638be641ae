"""What a model keeps of normal images to score by, and when it is kept anew."""

from pathlib import Path

import numpy as np
import pytest
import torch
from references import softened_patches
from scipy.spatial import cKDTree
from test_stages import amdm, data_of, distilled, trainer_of

from omiad import AMDMModule, Detector, OmiADModule
from omiad.errors import InputError
from omiad.scoring import Scoring

ALL = 10_000
"""More patches than the data set has."""

REMEMBERING = Scoring(pool_size=4, memory_size=ALL)


@pytest.fixture(scope="module")
def remembering(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remembering")
    trainer = trainer_of(folder, 6)
    trainer.fit(amdm(scoring=REMEMBERING), datamodule=data_of(mvtec_root, folder))
    trainer.save_checkpoint(folder / "amdm.ckpt")
    return folder / "amdm.ckpt"


def scored_by(
    module: AMDMModule | OmiADModule, root: Path, folder: Path, checkpoint: Path
) -> Detector:
    data = data_of(root, folder)
    trainer_of(folder, 1).test(module, datamodule=data, ckpt_path=str(checkpoint), verbose=False)
    return module.detector


def cells(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]).numpy()


def slow_distances(detector: Detector, normal: torch.Tensor, asked: torch.Tensor) -> np.ndarray:
    """Nearest neighbours among all normal patches, from the definition."""
    both = []
    for features in (normal, asked):
        x_0 = detector.normalizer(features)
        schedule, noise = detector.denoiser.schedule, detector.noise[0].expand(x_0.shape)
        steps = torch.full((len(x_0),), detector.t_init)
        with torch.no_grad():
            x_t = schedule.add_noise(x_0, noise, steps)
            both.append((cells(x_0), cells(x_0 - detector.denoiser(x_t, steps).x_0)))
    (x_0, residual), (x, r) = both
    rms = np.sqrt((residual**2).mean(0))
    stages, weight = detector.extractor.channels_per_stage, detector.scoring.residual_weight

    def patches(x_0: np.ndarray, residual: np.ndarray) -> np.ndarray:
        softened = softened_patches(x_0, stages), softened_patches(residual / rms, stages)
        return np.concatenate([softened[0], weight * softened[1]], axis=1)

    return cKDTree(patches(x_0, residual)).query(patches(x, r))[0]


def test_a_checkpoint_scores_by_the_nearest_normal_patch(
    remembering: Path, mvtec_root: Path, tmp_path: Path, generator: torch.Generator
) -> None:
    detector = Detector.load(remembering)
    features = data_of(mvtec_root, tmp_path).features("train")
    normal = torch.stack([features[i] for i in range(len(features))])
    asked = normal[:2].float() + torch.randn(normal[:2].shape, generator=generator)
    maps = detector.score_features(asked).anomaly_map
    expected = slow_distances(detector, normal, asked).reshape(2, 8, 8)
    # With aligned corners the corners of the map are those of the grid.
    np.testing.assert_allclose(maps[:, ::31, ::31], expected[:, ::7, ::7], rtol=1e-4)


def test_every_category_keeps_as_many_patches(mvtec_root: Path, tmp_path: Path) -> None:
    module = amdm(scoring=Scoring(pool_size=4, memory_size=30))
    trainer = trainer_of(tmp_path, 1)
    trainer.fit(module, datamodule=data_of(mvtec_root, tmp_path))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert len(Detector.load(tmp_path / "last.ckpt").memory.patches) == 2 * 30


def test_a_checkpoint_is_tested_with_the_memory_it_holds(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    detector = scored_by(amdm(scoring=REMEMBERING), mvtec_root, tmp_path, remembering)
    assert torch.equal(detector.memory.patches, Detector.load(remembering).memory.patches)


@pytest.mark.parametrize(
    "change",
    [
        {"t_init": 300},
        {"num_steps": 3},
        {"scoring": Scoring(pool_size=4, memory_size=ALL, residual_weight=0.2)},
        {"ema_fraction": 0.0},
    ],
)
def test_other_settings_than_the_checkpoints_fill_the_memory_anew(
    remembering: Path, mvtec_root: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    module = amdm(**({"scoring": REMEMBERING} | change))
    detector = scored_by(module, mvtec_root, tmp_path, remembering)
    kept = detector.memory.patches.clone()
    assert not torch.equal(kept, Detector.load(remembering).memory.patches)
    module.calibrate(module.data.features("train"))
    assert torch.equal(detector.memory.patches, kept)


def test_another_blur_leaves_the_memory_as_it_is(remembering: Path) -> None:
    detector = Detector.load(remembering)
    blurred = detector.spec["scoring"] | {"blur_sigma": 2.0}
    assert not detector.is_used_unlike(detector.spec | {"scoring": blurred})
    smaller = detector.spec["scoring"] | {"memory_size": 5}
    assert detector.is_used_unlike(detector.spec | {"scoring": smaller})


def test_one_image_is_enough_to_calibrate(remembering: Path, generator: torch.Generator) -> None:
    detector = Detector.load(remembering)
    detector.calibrate([torch.randn(1, detector.extractor.num_channels, 8, 8, generator=generator)])
    assert len(detector.memory.patches) == 64
    assert torch.isfinite(detector.map_range).all()


def test_without_a_memory_few_images_are_read(mvtec_root: Path, tmp_path: Path) -> None:
    module, read = amdm(), []
    trainer_of(tmp_path, 1).fit(module, datamodule=data_of(mvtec_root, tmp_path))

    class Counted:
        def __getitem__(self, index: int) -> torch.Tensor:
            read.append(index)
            return module.data.train_features[index]

    module.data.samples("train")  # eight images in two categories
    module.calibrate(Counted())  # type: ignore[arg-type]
    assert len(read) == 2 * min(4, module.detector.num_calibration_images)


def test_a_model_trained_without_a_memory_can_be_tested_with_one(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(tmp_path, 6)
    trainer.fit(amdm(), datamodule=data_of(mvtec_root, tmp_path))
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    detector = scored_by(amdm(scoring=REMEMBERING), mvtec_root, tmp_path, tmp_path / "plain.ckpt")
    expected = Detector.load(remembering).memory.patches
    torch.testing.assert_close(detector.memory.patches, expected)


def test_a_checkpoint_from_before_there_was_a_memory_still_loads(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(remembering, weights_only=True)
    state = checkpoint["state_dict"]
    for name in [name for name in state if "memory" in name]:
        del state[name]
    scoring = checkpoint["omiad"]["detector"]["scoring"]
    del scoring["memory_size"], scoring["residual_weight"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    loaded = Detector.load(tmp_path / "old.ckpt")
    assert loaded.scoring.memory_size == 0
    detector = scored_by(amdm(scoring=REMEMBERING), mvtec_root, tmp_path, tmp_path / "old.ckpt")
    torch.testing.assert_close(detector.memory.patches, Detector.load(remembering).memory.patches)


def test_a_memory_that_compared_otherwise_is_filled_anew(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(remembering, weights_only=True)
    state = checkpoint["state_dict"]
    rms = next(name for name in state if name.endswith("memory.rms"))
    state[rms.replace("rms", "scale")] = state.pop(rms).view(-1, 1, 1)
    torch.save(checkpoint, tmp_path / "old.ckpt")
    old = Detector.load(tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="memory of normal patches is empty"):
        old(torch.zeros(1, 3, old.extractor.image_size, old.extractor.image_size).byte())
    detector = scored_by(amdm(scoring=REMEMBERING), mvtec_root, tmp_path, tmp_path / "old.ckpt")
    torch.testing.assert_close(detector.memory.patches, Detector.load(remembering).memory.patches)


def test_the_generator_keeps_what_it_leaves_itself(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    _, trainer = distilled(
        mvtec_root,
        tmp_path,
        remembering,
        6,
        student_warmup_fraction=0.0,
    )
    trainer.save_checkpoint(tmp_path / "omiad.ckpt")
    student, teacher = Detector.load(tmp_path / "omiad.ckpt"), Detector.load(remembering)
    assert student.scoring == teacher.scoring
    channels = teacher.extractor.num_channels
    mine, theirs = student.memory.patches, teacher.memory.patches
    assert torch.equal(mine[:, :channels], theirs[:, :channels])
    assert not torch.equal(mine[:, channels:], theirs[:, channels:])


def test_the_range_is_of_images_the_memory_leaves_out(
    remembering: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    detector = Detector.load(remembering)
    features = data_of(mvtec_root, tmp_path).features("train")
    shown = torch.stack([features[i] for i in range(len(features))])
    kept = detector.score_features(shown).anomaly_map
    assert kept.abs().max() < 1e-3  # each patch finds itself
    assert detector.map_range[0] > 0.1
    assert detector.map_range[1] > detector.map_range[0]
