"""Streamed pixel figures against slow definitions, in one pass and in several."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from references import mvtec_au_pro, slow_pixel_figures
from scipy import ndimage

from omiad.errors import InputError
from omiad.metrics import PixelDetection

SHAPE = (5, 12, 12)


def random_masks(rng: np.random.Generator) -> np.ndarray:
    masks = ndimage.binary_dilation(rng.random(SHAPE) > 0.97, np.ones((1, 3, 3)))
    masks[0] = False
    return masks


def maps_of(kind: str, masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=masks.shape) + masks
    hot = noise.copy()
    hot[2] = 0
    hot[2, 3, 4] = 1e6
    maps = {
        "random": noise,
        "tied": np.round(2 * noise),
        "negative": noise - 50,
        "huge range": np.exp(12 * noise),
        "narrow band": 40 + 1e-4 * noise,
        "narrow band and outliers": np.where(rng.random(SHAPE) < 0.01, -1e30, 1e3 + 1e-2 * noise),
        "one-hot image": hot,
        "constant": np.full(SHAPE, -7.0),
        "inverted": -noise,
    }[kind]
    return maps.astype(np.float32)


KINDS = [
    "random",
    "tied",
    "negative",
    "huge range",
    "narrow band",
    "narrow band and outliers",
    "one-hot image",
    "constant",
    "inverted",
]


def fed(metric: PixelDetection, maps: np.ndarray, masks: np.ndarray) -> PixelDetection:
    for i in range(0, len(maps), 2):
        rows = torch.arange(i, min(i + 2, len(maps)))
        metric.update(torch.from_numpy(maps)[rows], torch.from_numpy(masks)[rows], index=rows)
    return metric


@pytest.mark.parametrize("kind", ["random", "tied", "negative", "narrow band", "inverted"])
def test_figures_agree_with_adeval(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its strips have one width, so it is asked where they tell the scores apart.

    Its AP is a trapezoid's and another figure.
    """
    adeval = pytest.importorskip("adeval.mem_effic", reason="adeval is no dependency")
    if not hasattr(np, "trapz"):  # the name adeval 1.1 knows
        monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    rng = np.random.default_rng(0)
    masks = random_masks(rng)
    maps = maps_of(kind, masks, rng)
    figures = fed(PixelDetection(), maps, masks).compute()
    auroc, _, aupro = adeval.auroc_aupr_aupro(maps, masks.astype(np.uint8), nstrips=20_000)
    assert figures["pixel_auroc"].value == pytest.approx(auroc, abs=1e-4)
    assert figures["aupro"].value == pytest.approx(aupro, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_few_scores_are_counted_exactly(kind: str) -> None:
    rng = np.random.default_rng(0)
    masks = random_masks(rng)
    maps = maps_of(kind, masks, rng)
    figures = fed(PixelDetection(), maps, masks).compute()
    for name, value in slow_pixel_figures(maps, masks).items():
        assert figures[name].bound == 0
        assert figures[name].value == pytest.approx(value, abs=1e-6), name  # float32 weights


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_curves_are_those_of_mvtecs_definition(kind: str) -> None:
    rng = np.random.default_rng(5)
    masks = random_masks(rng)
    maps = maps_of(kind, masks, rng)
    figures = fed(PixelDetection(), maps, masks).compute()
    for name, limit in (("aupro", 0.3), ("aupro_0.05", 0.05), ("aupro_0.01", 0.01)):
        expected = mvtec_au_pro(maps, masks, limit)
        assert figures[name].value == pytest.approx(expected, abs=1e-6), name


@pytest.mark.parametrize("kind", KINDS)
def test_coarse_bins_bound_the_error_and_finer_passes_reach_the_tolerance(kind: str) -> None:
    rng = np.random.default_rng(1)
    masks = random_masks(rng)
    maps = maps_of(kind, masks, rng)
    exact = slow_pixel_figures(maps, masks)
    metric = PixelDetection(max_bins=16)
    figures = fed(metric, maps, masks).compute()
    passes = 1
    while True:
        for name, value in exact.items():
            assert abs(figures[name].value - value) <= figures[name].bound + 1e-6, name
        if not metric.refine(1e-3):
            break
        figures = fed(metric, maps, masks).compute()
        passes += 1
    assert max(figure.bound for figure in figures.values()) <= 1e-3
    assert passes <= 7


def test_a_single_tiny_region_among_many_pixels_is_found_at_its_rank() -> None:
    rng = np.random.default_rng(2)
    maps = rng.random((4, 64, 64)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[3, 7, 7] = True
    metric = PixelDetection(max_bins=64)
    fed(metric, maps, masks).compute()
    while metric.refine():
        figures = fed(metric, maps, masks).compute()
    rank = (maps >= maps[3, 7, 7]).sum()
    assert figures["pixel_ap"].value == pytest.approx(1 / rank, abs=1e-4)
    assert figures["pixel_auroc"].value == pytest.approx(1 - (rank - 1) / (maps.size - 1), abs=1e-4)


def test_changed_maps_in_a_second_pass_are_noticed_and_the_first_pass_stands() -> None:
    rng = np.random.default_rng(3)
    masks = random_masks(rng)
    maps = maps_of("random", masks, rng)
    metric = PixelDetection(max_bins=16)
    first = fed(metric, maps, masks).compute()
    assert metric.refine(1e-4)
    assert fed(metric, np.roll(maps, 1, axis=1), masks).compute() == first
    assert not metric.is_repeatable
    assert not metric.refine(1e-4)


def test_a_pixel_that_moves_to_another_bin_is_noticed_though_their_sum_is_the_same() -> None:
    rng = np.random.default_rng(3)
    masks = random_masks(rng)
    maps = maps_of("random", masks, rng)
    metric = PixelDetection(max_bins=4)
    first = fed(metric, maps, masks).compute()
    assert metric.refine(0)
    moved = maps.copy()
    moved[0].flat[maps[0].argmin()] = maps[0].max()
    assert fed(metric, moved, masks).compute() == first
    assert not metric.is_repeatable


def test_the_state_is_bounded_whatever_the_number_of_images() -> None:
    rng = np.random.default_rng(6)
    metric = PixelDetection(max_bins=100)
    for start in range(0, 120, 3):
        rows = torch.arange(start, start + 3)
        maps = torch.from_numpy(rng.normal(size=(3, 12, 12)).astype(np.float32))
        metric.update(maps, maps > 1, index=rows)
        assert [len(part) for part in (metric.keys, metric.counts, metric.index)] == [2, 2, 1]
        assert max(len(keys) for keys in metric.keys) <= 100
    assert metric.index[0].tolist() == list(range(119))  # the last one waits
    assert metric.compute()["pixel_auroc"].value > 0.99


def test_reset_forgets_finer_bins_too() -> None:
    rng = np.random.default_rng(3)
    masks = random_masks(rng)
    maps = maps_of("random", masks, rng)
    metric = PixelDetection(max_bins=16)
    first = fed(metric, maps, masks).compute()
    assert metric.refine(1e-4)
    metric.reset()
    assert fed(metric, maps, masks).compute() == first


def test_one_class_has_no_figures() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random(SHAPE).astype(np.float32)
    for masks in (np.zeros(SHAPE, bool), np.ones(SHAPE, bool)):
        metric = fed(PixelDetection(), maps, masks)
        assert set(metric.compute().values()) == {None}
        assert not metric.refine()


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(4)
    masks = random_masks(rng)
    return torch.from_numpy(maps_of("random", masks, rng)), torch.from_numpy(masks)


def shares(
    problem: tuple[torch.Tensor, torch.Tensor], parts: list[list[list[int]]]
) -> list[PixelDetection]:
    """Feed the batches of each process to a metric of its own."""
    metrics = []
    for batches in parts:
        metrics.append(PixelDetection(max_bins=64))
        for batch in batches:
            rows = torch.tensor(batch)
            metrics[-1].update(problem[0][rows], problem[1][rows], index=rows)
    return metrics


def gathered(metrics: list[PixelDetection]) -> PixelDetection:
    """Put the states together as `all_gather` does."""
    for other in metrics[1:]:
        for name in ("keys", "counts", "tags", "index"):
            getattr(metrics[0], name).extend(getattr(other, name))
    return metrics[0]


@pytest.mark.parametrize(
    "parts",
    [
        [[[0, 1], [2, 3], [4]]],
        [[[4, 2, 0]], [[1], [3]]],
        [[[0], [3]], [[1], [4]], [[2]]],
        # A sampler that pads repeats the first images at the end.
        [[[0, 3]], [[1, 4]], [[2, 0]]],
        [[[0, 1], [2]], [[3, 4], [0]]],
        # One process was given images twice.
        [[[0, 1], [1, 2]], [[3], [4, 3]]],
        [[[0, 1, 2, 3, 4], [4]], []],
    ],
)
def test_neither_batches_nor_processes_nor_repeated_images_change_a_figure(
    problem: tuple[torch.Tensor, torch.Tensor], parts: list[list[list[int]]]
) -> None:
    whole = shares(problem, [[[0, 1, 2, 3, 4]]])[0].compute()
    assert gathered(shares(problem, parts)).compute() == whole


def test_processes_that_share_more_than_padding_are_refused(
    problem: tuple[torch.Tensor, torch.Tensor],
) -> None:
    metric = gathered(shares(problem, [[[0, 1, 2]], [[0, 1, 3]]]))
    with pytest.raises(InputError, match="Two processes scored the same test images"):
        metric.compute()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps, masks: (maps, masks[:, :4]), r"got \(5, 4, 12\) for \(5, 12, 12\)"),
        (lambda maps, masks: (maps / 0, masks), "finite scores"),
    ],
)
def test_maps_that_cannot_be_counted_are_refused(
    problem: tuple[torch.Tensor, torch.Tensor],
    change: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        PixelDetection().update(*change(*problem))


def test_scores_that_float32_would_round_are_refused() -> None:
    masks = torch.zeros(1, 2, 2, dtype=torch.bool)
    exact = torch.tensor([[[0.5, -2.0], [3.0, 1e6]]], dtype=torch.float64)
    PixelDetection().update(exact, masks)
    for wrong in (exact + 1e-9, 1e300 * exact):
        with pytest.raises(InputError, match="which rounds some of these"):
            PixelDetection().update(wrong, masks)
