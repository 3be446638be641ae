"""The bounds of binned figures: they hold for every order within the bins, and some are reached."""

import numpy as np
import pytest
from references import slow_pixel_figures

from omiad.metrics.ranking import PIXEL_FIGURES, Ranked, au_pro, auroc, average_precision, f1_max


def binned(bins: np.ndarray, labels: np.ndarray, *, is_tied: bool = False) -> Ranked:
    """Count scores in bins numbered from the lowest; each defective one is a region."""
    size = bins.max() + 1
    normal, defective = (np.bincount(bins, weights=w, minlength=size) for w in (~labels, labels))
    counts = np.stack([normal, defective, defective])[:, ::-1]
    return Ranked(counts, np.full(size, is_tied))


def exact(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the figures of images of a single pixel."""
    return slow_pixel_figures(scores.reshape(-1, 1, 1), labels.reshape(-1, 1, 1))


@pytest.mark.parametrize("seed", range(0, 8, 2))
def test_the_figures_of_every_order_within_the_bins_lie_between_the_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, 2 + 2 * seed, 40)
    labels = rng.random(40) < rng.choice([0.1, 0.5])
    labels[:2] = True, False
    bounds = {name: figure(binned(bins, labels)) for name, figure in PIXEL_FIGURES.items()}
    for trial in range(12):
        # Any order, many ties, one tie, and the two extremes; bins are 10 apart.
        inside = [rng.random(40), rng.integers(0, 3, 40), np.zeros(40), labels, ~labels][trial % 5]
        for name, value in exact(10 * bins + inside, labels).items():
            (low, high), spread = bounds[name]
            assert low - 1e-9 <= value <= high + 1e-9, name
            assert high - low <= spread.sum() + 1e-9


def test_bounds_are_reached_by_the_extreme_orders() -> None:
    rng = np.random.default_rng(0)
    bins, labels = rng.integers(0, 4, 60), rng.random(60) < 0.3
    best, worst = (exact(10 * bins + inside, labels) for inside in (labels, ~labels))
    for name in ("pixel_auroc", "pixel_f1_max", "aupro", "aupro_0.05"):
        low, high = PIXEL_FIGURES[name](binned(bins, labels)).interval
        assert high == pytest.approx(best[name], abs=1e-9), name
        assert low == pytest.approx(worst[name], abs=1e-9), name
    high = average_precision(binned(bins, labels)).interval.high
    assert high == pytest.approx(best["pixel_ap"], abs=1e-9)


@pytest.mark.parametrize("levels", [1, 5, 30])
def test_tied_bins_are_exact(levels: int) -> None:
    rng = np.random.default_rng(levels)
    bins, labels = rng.integers(0, levels, 50), rng.random(50) < 0.4
    for name, value in exact(bins.astype(float), labels).items():
        interval = PIXEL_FIGURES[name](binned(bins, labels, is_tied=True)).interval
        assert interval.bound == 0
        assert interval.value == pytest.approx(value, abs=1e-9), name


def test_bounds_worked_by_hand() -> None:
    # One bin of a positive and three negatives above one of a single negative.
    bins, labels = np.array([1, 1, 1, 1, 0]), np.array([True, False, False, False, False])
    ranked = binned(bins, labels)
    assert auroc(ranked).interval == pytest.approx((1 / 4, 1))
    assert average_precision(ranked).interval == pytest.approx((1 / 4, 1))
    assert f1_max(ranked).interval == pytest.approx((2 / 5, 1))
    # Up to FPR 0.3 the overlap is 1 or nothing.
    interval = au_pro(ranked, fpr_limit=0.3).interval
    assert interval == pytest.approx((0, 1))
    assert interval.value == pytest.approx(0.5)
    assert interval.bound == pytest.approx(0.5)
