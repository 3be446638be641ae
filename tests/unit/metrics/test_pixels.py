"""Streamed pixel figures against slow definitions, in one pass and in two."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from references import slow_pixel_figures
from scipy import ndimage

from omiad.errors import InputError
from omiad.metrics import PixelDetection, pixels
from omiad.metrics.histogram import MAX_BINS

SHAPE = (5, 12, 12)


def masks_from(rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    masks = ndimage.binary_dilation(rng.random(shape) > 0.97, np.ones((1, 3, 3)))
    masks[0] = False
    return masks


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "random": lambda noise: noise,
    "tied": lambda noise: np.round(2 * noise),
    "huge range": lambda noise: np.exp(12 * noise),
    "narrow band": lambda noise: 40 + 1e-4 * noise,
    "narrow band and outliers": lambda noise: np.where(noise > 2.5, -1e30, 1e3 + 1e-2 * noise),
    "one hot pixel": lambda noise: np.where(noise == noise.max(), 1e6, noise),
    "constant": lambda noise: np.full(noise.shape, -7.0),
    "inverted": lambda noise: -noise - 50,
}


def maps_of(kind: str, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return KINDS[kind](rng.normal(size=masks.shape) + masks).astype(np.float32)


def fed(metric: PixelDetection, maps: np.ndarray, masks: np.ndarray) -> PixelDetection:
    for rows in torch.arange(len(maps)).split(2):
        metric.update(torch.from_numpy(maps)[rows], torch.from_numpy(masks)[rows], rows)
    return metric


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_in_both_passes_and_the_second_narrows_them(kind: str) -> None:
    rng = np.random.default_rng(1)
    masks = masks_from(rng)
    maps = maps_of(kind, masks, rng)
    exact = slow_pixel_figures(maps, masks)
    for name, figure in fed(PixelDetection(), maps, masks).compute().items():  # a bin per score
        assert figure.bound == 0
        assert figure.value == pytest.approx(exact[name], abs=1e-6), name  # float32 weights
    metric = PixelDetection(max_bins=64)
    first = fed(metric, maps, masks).compute()
    second = fed(metric, maps, masks).compute() if metric.refine(1e-3) else first
    for figures in (first, second):
        for name, value in exact.items():
            assert abs(figures[name].value - value) <= figures[name].bound + 1e-6, name
    bounds = [max(figure.bound for figure in figures.values()) for figures in (first, second)]
    assert bounds[1] < bounds[0] or bounds[0] <= 1e-3


@pytest.mark.parametrize("kind", ["probabilities", "zeros"])
def test_a_second_pass_settles_scores_that_crowd(kind: str) -> None:
    """Softmax maps crowd below one over many binary orders; rectified maps are zero or far away."""
    rng = np.random.default_rng(0)
    masks = masks_from(rng, (8, 100, 100))
    noise = rng.normal(size=masks.shape)
    maps = {
        "probabilities": 1 / (1 + np.exp(14 - 6 * noise - 20 * masks)),
        "zeros": np.where(rng.random(masks.shape) < 0.9, 0, np.exp(3 * noise + 2 * masks)),
    }[kind].astype(np.float32)
    exact = fed(PixelDetection(), maps, masks).compute()
    metric, tolerance = PixelDetection(max_bins=2**12), 5e-4
    first = fed(metric, maps, masks).compute()
    assert max(figure.bound for figure in first.values()) > 20 * tolerance
    assert metric.refine(tolerance)
    second = fed(metric, maps, masks).compute()
    for name, figure in second.items():
        assert figure.bound <= tolerance
        assert figure.value == pytest.approx(exact[name].value, abs=figure.bound + 1e-9), name


@pytest.mark.parametrize("change", ["all pixels", "one pixel"])
def test_changed_maps_in_a_second_pass_are_noticed_and_the_first_pass_stands(change: str) -> None:
    rng = np.random.default_rng(3)
    masks = masks_from(rng)
    maps = maps_of("random", masks, rng)
    changed = np.roll(maps, 1, axis=1)
    if change == "one pixel":  # it moves to another bin; the sum over bins stays
        changed = maps.copy()
        changed[0].flat[maps[0].argmin()] = maps[0].max()
    metric = PixelDetection(max_bins=4)
    first = fed(metric, maps, masks).compute()
    assert metric.refine(0)
    assert fed(metric, changed, masks).compute() == first
    assert not metric.is_repeatable


def test_what_is_kept_and_sent_is_bounded_whatever_the_number_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(6)
    metric = PixelDetection(max_bins=100)
    for rows in torch.arange(120).split(3):
        maps = torch.from_numpy(rng.normal(size=(3, 12, 12)).astype(np.float32))
        metric.update(maps, maps > 1, rows)
    sent = []
    monkeypatch.setattr(pixels, "gather", lambda mine: [sent.append(mine) or mine])
    assert metric.compute()["pixel_auroc"].value > 0.99
    [(images, others, last_image, last)] = sent
    assert len(images) == last_image == 119
    assert max(len(others.keys), len(last.keys)) <= 100 < MAX_BINS


@pytest.mark.parametrize("is_defective", [True, False])
def test_one_class_has_no_figures_and_needs_no_second_pass(is_defective: bool) -> None:
    maps = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    metric = fed(PixelDetection(max_bins=4), maps, np.full(SHAPE, is_defective))
    assert set(metric.compute().values()) == {None}
    assert not metric.refine()


PARTS = [
    [[[0, 1], [2, 3], [4]]],
    [[[4, 2, 0]], [[1], [3]]],
    [[[0], [3]], [[1], [4]], [[2]]],
    # A sampler that pads repeats the first images at the end.
    [[[0, 3]], [[1, 4]], [[2, 0]]],
    [[[0, 1], [2]], [[3, 4], [0]]],
    # One process was given images twice, another none.
    [[[0, 1], [1, 2]], [[3], [4, 3]], []],
]


def compute_together(
    parts: list[list[list[int]]], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, object]]:
    """Feed each process its batches of five images and compute as if they exchanged states."""
    rng = np.random.default_rng(4)
    masks = masks_from(rng)
    maps, labels = torch.from_numpy(maps_of("random", masks, rng)), torch.from_numpy(masks)
    metrics, states = [PixelDetection(max_bins=64) for _ in parts], []
    for metric, batches in zip(metrics, parts, strict=True):
        for rows in map(torch.tensor, batches):
            metric.update(maps[rows], labels[rows], rows)
    monkeypatch.setattr(pixels, "gather", lambda mine: [states.append(mine) or mine])
    for metric in metrics:
        metric.compute()
    monkeypatch.setattr(pixels, "gather", lambda mine: list(states))
    return [dict(metric.compute()) for metric in metrics]


@pytest.mark.parametrize("parts", PARTS)
def test_neither_batches_nor_processes_nor_repeated_images_change_a_figure(
    parts: list[list[list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = compute_together([[[0, 1, 2, 3, 4]]], monkeypatch)
    assert compute_together(parts, monkeypatch) == [whole] * len(parts)


def test_processes_that_share_more_than_padding_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="scored by two processes"):
        compute_together([[[0, 1, 2]], [[0, 1, 3]]], monkeypatch)


def test_maps_that_cannot_be_counted_are_refused() -> None:
    maps, masks, index = torch.rand(2, 4, 4), torch.zeros(2, 4, 4, dtype=bool), torch.arange(2)
    with pytest.raises(InputError, match=r"got \(2, 4, 4\) for \(2, 2, 4\)"):
        PixelDetection().update(maps[:, :2], masks, index)
    for wrong in (maps.double() + 1e-9, 1e300 * (1 + maps.double())):
        with pytest.raises(InputError, match=r"some of these torch\.float64"):
            PixelDetection().update(wrong, masks, index)
    PixelDetection().update(maps.double(), masks, index)  # each of them a float32
