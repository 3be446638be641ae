"""What a detector learns from normal photographs: its memory, and the scale of its maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from references import patches
from scipy.spatial import cKDTree
from tiny import Data, Fit, amdm

from omiad import Detector, OmiADModule
from omiad.calibration import calibrate
from omiad.errors import InputError
from omiad.learning import learn_products
from omiad.scoring import Scoring


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
    options = rms, detector.extractor.channels_per_stage, detector.scoring.residual_weight
    return cKDTree(patches(x_0, residual, *options)).query(patches(x, r, *options))[0]


def test_a_checkpoint_scores_by_the_nearest_normal_patch(
    teacher: Path, data: Data, generator: torch.Generator
) -> None:
    detector = Detector.load(teacher)
    normal = torch.stack(list(data().features("train")))
    # Each patch finds itself, but the scale is that of images that the memory leaves out.
    assert detector.score_features(normal).anomaly_map.abs().max() < 1e-3
    assert detector.map_range[1] > detector.map_range[0] > 0.1
    asked = normal[:2].float() + torch.randn(normal[:2].shape, generator=generator)
    maps = detector.score_features(asked).anomaly_map
    expected = slow_distances(detector, normal, asked).reshape(2, 8, 8)
    # With aligned corners the corners of the map are those of the grid.
    np.testing.assert_allclose(maps[:, ::31, ::31], expected[:, ::7, ::7], rtol=1e-4)


def test_every_category_keeps_as_many_patches(fit: Fit) -> None:
    module = amdm(scoring=Scoring(pool_size=4, memory_size=30))
    fit(module)
    assert len(module.detector.memory.patches) == 2 * 30


def test_the_generator_keeps_its_own_residuals(
    teacher: Path, student: tuple[OmiADModule, Path]
) -> None:
    start, after = Detector.load(teacher), Detector.load(student[1])
    assert after.scoring == start.scoring
    channels = start.extractor.num_channels
    mine, theirs = after.memory.patches, start.memory.patches
    assert torch.equal(mine[:, :channels], theirs[:, :channels])
    assert not torch.equal(mine[:, channels:], theirs[:, channels:])


def test_without_a_memory_few_images_are_read(teacher: Path) -> None:
    detector, read = Detector.load(teacher, scoring=vars(Scoring(pool_size=4))), []

    class Counted:
        def __getitem__(self, index: int) -> torch.Tensor:
            read.append(index)
            return torch.zeros(detector.extractor.num_channels, 8, 8)

    calibrate(detector, Counted(), {"a": range(100), "b": [100, 101]})
    assert read == [0, 25, 50, 75, 100, 101]


def images_of(detector: Detector, count: int, noise: float, seed: int) -> torch.Tensor:
    """Features of photographs of one scene that differ by noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (detector.extractor.num_channels, 8, 8)
    scene = torch.randn(shape, generator=generator)
    return scene + noise * torch.randn(count, *shape, generator=generator)


def scale_of(detector: Detector, *categories: torch.Tensor) -> tuple[float, float]:
    features, positions, start = torch.cat(categories), {}, 0
    for number, images in enumerate(categories):
        positions[str(number)] = range(start, start + len(images))
        start += len(images)
    calibrate(detector, features, positions)
    low, high = detector.map_range.tolist()
    return low, high


def test_a_category_of_one_image_does_not_change_the_scale_of_the_others(teacher: Path) -> None:
    detector = Detector.load(teacher)
    many, one = images_of(detector, 12, 0.3, 0), images_of(detector, 1, 0.3, 1)
    alone = scale_of(detector, many)
    assert scale_of(detector, many, one) == pytest.approx(alone, rel=0.05)
    assert len(detector.memory.patches) == 13 * 64  # the single image is remembered


def test_the_scale_of_a_single_image_is_not_its_distance_to_itself(teacher: Path) -> None:
    detector = Detector.load(teacher)
    (image,) = images_of(detector, 1, 0.3, 1)
    low, high = scale_of(detector, image[None])
    assert 0.1 < low < high
    # A photograph of the same kind is drawn within the scale.
    maps = detector.score_features(images_of(detector, 2, 0.3, 1)[1:]).anomaly_map
    assert maps.median() < high


def test_a_fixed_camera_gets_the_scale_of_new_photographs(teacher: Path) -> None:
    # Photographs of one scene represent each other, so a coreset may keep only patches of those
    # that set the scale; the scale must still be what a photograph taken later gets.
    detector = Detector.load(teacher, scoring=vars(Scoring(pool_size=4, memory_size=64)))
    shots = images_of(detector, 48, 0.1, 0)
    low, high = scale_of(detector, shots[:24])
    later = detector.score_features(shots[24:]).anomaly_map
    assert low == pytest.approx(later.median().item(), rel=0.15)
    assert (later < high).float().mean() > 0.99


def test_products_know_scores_that_their_photographs_got_without_being_remembered(
    teacher: Path, data: Data
) -> None:
    detector = Detector.load(teacher)
    module = data()
    features, positions = module.features("train"), {"bottle": [*range(4)], "cable": [4, 5, 6, 7]}
    learn_products(detector, features, positions, {})
    products = detector.products
    assert products.names == ["bottle", "cable"]
    assert products.counts.tolist() == [4, 4]
    own = detector.score_features(torch.stack(list(features)))
    assert (products.images > own.score + 1e-3).all()  # the memory holds each photograph itself
    # The scores of the second fold, by hand: a memory of everything but the second photographs.
    calibrate(detector, features, {"bottle": [0, 2, 3], "cable": [4, 6, 7]})
    second = detector.score_features(torch.stack([features[1], features[5]]))
    assert torch.equal(second.score, products.images[[1, 5]])
    assert torch.equal(second.anomaly_map.amax((1, 2)), products.peaks[[1, 5]])


def test_photographs_kept_out_of_training_set_the_threshold_of_their_product(
    teacher: Path, data: Data
) -> None:
    detector = Detector.load(teacher)
    features = data().features("train")
    fitted, kept = {"bottle": [0, 1, 2, 3], "cable": [4, 5]}, {"cable": [6, 7]}
    calibrate(detector, features, fitted)
    learn_products(detector, features, fitted, kept)
    scores = detector.score_features(torch.stack([features[6], features[7]])).score
    assert detector.products.counts.tolist() == [4, 2]
    assert torch.equal(detector.products.images[4:], scores)
    with pytest.raises(InputError, match=r"'bottle' .*\(2\)"):
        learn_products(detector, features, {"bottle": [0, 1]}, {})
