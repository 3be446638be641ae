"""Resampled figures against figures of images that are repeated."""

import numpy as np
import pytest
import torch
from references import slow_pixel_figures, slow_ranking
from scipy import ndimage

from omiad.metrics import bootstrap
from omiad.metrics.bootstrap import ScoredImages, deviations, draw, interval, means
from omiad.metrics.detection import IMAGE_METRICS, PIXEL_METRICS
from omiad.metrics.histogram import Pixels, score_codes
from omiad.metrics.image_counts import ImageCounts

NUM_IMAGES = 8


@pytest.fixture
def maps() -> np.ndarray:
    """Scores of few levels, so that coarse bins lose nothing."""
    return np.random.default_rng(0).integers(0, 9, (NUM_IMAGES, 7, 7)).astype(np.float32)


@pytest.fixture
def masks() -> np.ndarray:
    masks = np.random.default_rng(1).random((NUM_IMAGES, 7, 7)) > 0.8
    masks = ndimage.binary_opening(masks, np.ones((1, 1, 2)))
    masks[:3] = False
    return masks


def images_of(maps: np.ndarray, masks: np.ndarray) -> ScoredImages:
    counts = ImageCounts()
    counts.add(Pixels.of(score_codes(torch.from_numpy(maps)), masks), list(range(len(maps))))
    return ScoredImages(
        name=np.array([f"{i}.png" for i in range(len(maps))]),
        score=maps.max((1, 2)).astype(float) + maps[:, 0, 0],
        is_anomalous=masks.any((1, 2)),
        has_mask=np.ones(len(maps), bool),
        counts=counts.read(),
    )


@pytest.mark.parametrize("block", [2**18, 3 * NUM_IMAGES])
def test_a_draw_counts_like_images_that_were_repeated(
    block: int, maps: np.ndarray, masks: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "_BLOCK", block)
    images = images_of(maps, masks)
    times = draw(images.is_anomalous, num=5, rng=np.random.default_rng(0))
    moved = deviations(images, times)
    assert set(moved) == {*IMAGE_METRICS, *PIXEL_METRICS}

    def figures(rows: np.ndarray) -> dict[str, float]:
        pixel = slow_pixel_figures(maps[rows], masks[rows])
        image = slow_ranking(images.score[rows], images.is_anomalous[rows])
        return pixel | {f"image_{name}": value for name, value in image.items()}

    whole = figures(np.arange(NUM_IMAGES))
    for number, row in enumerate(times):
        drawn = figures(np.repeat(np.arange(NUM_IMAGES), row.astype(int)))
        for name, values in moved.items():
            assert values[number] == pytest.approx(drawn[name] - whole[name], abs=1e-5), name


def test_a_draw_keeps_the_number_of_each_label_and_depends_on_its_seed() -> None:
    labels = np.arange(10) < 3
    times = draw(labels, num=50, rng=np.random.default_rng(0))
    assert (times[:, labels].sum(1) == 3).all()
    assert (times[:, ~labels].sum(1) == 7).all()
    np.testing.assert_array_equal(times, draw(labels, num=50, rng=np.random.default_rng(0)))
    assert (times != draw(labels, num=50, rng=np.random.default_rng(1))).any()


def test_undefined_metrics_are_left_out_and_are_nan_where_a_draw_does_not_define_them(
    maps: np.ndarray, masks: np.ndarray
) -> None:
    images = images_of(maps, masks)
    times = np.ones((2, NUM_IMAGES))
    without = images._replace(has_mask=~images.is_anomalous)
    assert set(deviations(without, times)) == set(IMAGE_METRICS)
    normal = images._replace(
        is_anomalous=np.zeros(NUM_IMAGES, bool), counts=np.zeros_like(images.counts)
    )
    assert deviations(normal, times) == {}
    times[1, masks.any((1, 2))] = 0
    values = deviations(images, times)["pixel_ap"]
    assert values[0] == 0
    assert np.isnan(values[1])
    assert interval(0.5, values) == (0.5, 0.5)


def test_means_are_those_of_each_draw() -> None:
    rows = {
        "a": {name: np.array([0.0, 0.1]) for name in (*IMAGE_METRICS, *PIXEL_METRICS)},
        "b": {name: np.array([0.2, 0.5]) for name in IMAGE_METRICS},
    }
    result = means(rows)
    np.testing.assert_allclose(result["a"]["mad"], [0.0, 0.1])
    np.testing.assert_allclose(result[None]["image_ap"], [0.1, 0.3])
    np.testing.assert_allclose(result[None]["mad"], [0.0, 0.1])
    assert "mad" not in result["b"]


def test_an_interval_holds_95_percent_of_the_draws() -> None:
    assert interval(0.5, np.linspace(-0.1, 0.3, 401)) == pytest.approx((0.41, 0.79))


def test_images_keep_their_counts_when_bins_grow_coarser() -> None:
    rng = np.random.default_rng(2)
    wide = np.exp(8 * rng.normal(size=(NUM_IMAGES, 30, 30))).astype(np.float32)
    labels = rng.random(wide.shape) > 0.9
    codes = score_codes(torch.from_numpy(wide))
    counts = ImageCounts()
    for i in (3, 1, 0, 2, 7, 6, 5, 4, 4):  # the last one comes twice
        counts.add(Pixels.of(codes[i], labels[i : i + 1]), [i])
    shift = next(s for s in range(32) if len(np.unique(codes >> s)) <= 256)
    bins = np.unique(codes >> shift)
    for image, found in enumerate(counts.read()):
        for row, kind in zip(found, (~labels, labels), strict=False):
            inside = np.searchsorted(bins, (codes[image] >> shift)[kind[image]])
            np.testing.assert_array_equal(row, np.bincount(inside, minlength=len(bins)))
