"""Codes and bins: order, size and independence of how the scores arrive."""

import numpy as np
import pytest
import torch

from omiad.metrics.histogram import Pixels, Tally, merge, score_codes, scores_of, tally

SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.4e38, -3.4e38, 40.0, 40.000004, -7e-12]


def counted(scores: np.ndarray, max_bins: int, weights: np.ndarray | None = None) -> Tally:
    codes = score_codes(torch.from_numpy(scores.astype(np.float32)))
    weights = np.zeros(len(codes)) if weights is None else weights
    defective = np.flatnonzero(weights)
    pixels = Pixels(codes, defective, weights[defective].astype(np.float32))
    return tally(pixels, max_bins=max_bins)


def assert_same(a: Tally, b: Tally) -> None:
    assert a.shift == b.shift
    np.testing.assert_array_equal(a.keys, b.keys)
    np.testing.assert_array_equal(a.counts, b.counts)


def test_codes_are_in_the_order_of_the_scores_and_lead_back_to_them() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(-(2**31), 2**31, 2000).astype(np.int32).view(np.float32)
    scores = np.concatenate([np.array(SPECIAL, np.float32), bits[np.isfinite(bits)]])
    codes = score_codes(torch.from_numpy(scores))
    order = np.argsort(scores, kind="stable")
    np.testing.assert_array_equal(np.sign(np.diff(codes[order].astype(np.int64))),
                                  np.sign(np.diff(scores[order].astype(np.float64))))  # fmt: skip
    np.testing.assert_array_equal(scores_of(codes), scores)
    for dtype in (torch.float16, torch.bfloat16):
        half = torch.linspace(-3, 3, 50).to(dtype)
        assert (np.diff(score_codes(half).astype(np.int64)) > 0).all()


@pytest.mark.parametrize("max_bins", [2, 16, 1000])
def test_bins_are_the_finest_that_fit(max_bins: int) -> None:
    scores = np.random.default_rng(0).normal(size=700)
    codes = score_codes(torch.from_numpy(scores.astype(np.float32)))
    result = counted(scores, max_bins)
    assert len(result.keys) <= max_bins
    np.testing.assert_array_equal(result.keys, np.unique(codes >> result.shift))
    assert result.shift == 0 or len(np.unique(codes >> (result.shift - 1))) > max_bins
    assert result.counts[0].sum() == 700


@pytest.mark.parametrize("kind", ["normal", "band", "constant", "huge"])
def test_neither_order_nor_grouping_changes_a_tally(kind: str) -> None:
    rng = np.random.default_rng(1)
    scores = {
        "normal": rng.normal(size=600),
        "band": np.append(1000 + 1e-3 * rng.random(599), -5.0),
        "constant": np.full(600, 3.0),
        "huge": np.exp(20 * rng.normal(size=600)) * rng.choice([-1, 1], 600),
    }[kind]
    areas = rng.choice([0.0, 1.0, 1 / 3, 1 / 7], 600)
    whole = counted(scores, 32, areas)
    order = rng.permutation(600)
    scores, areas = scores[order], areas[order]
    parts = [counted(scores[i : i + 150], 32, areas[i : i + 150]) for i in range(0, 600, 150)]
    assert_same(merge(parts, max_bins=32), whole)
    nested = merge([merge(parts[2:], max_bins=32), merge(parts[:2], max_bins=32)], max_bins=32)
    assert_same(nested, whole)
    assert_same(merge([whole, Tally()], max_bins=32), whole)


def test_an_outlier_leaves_a_narrow_band_as_fine_as_it_was() -> None:
    band = 40 + 1e-4 * np.arange(20)
    assert counted(band, 32).shift == 0
    assert counted(np.concatenate([band, [-1e30, 0.0, 1e30]]), 32).shift == 0


def test_no_scores_are_no_bins() -> None:
    assert_same(counted(np.empty(0), 16), Tally())
    assert_same(merge([Tally()] * 2, max_bins=16), Tally())


def test_the_weights_of_each_region_sum_to_one_and_diagonal_pixels_are_one_region() -> None:
    masks = np.zeros((4, 6, 6), bool)
    masks[0, :2, :3] = masks[0, 5, 5] = masks[3, 3:, :2] = True
    masks[2] = np.eye(6, dtype=bool)
    pixels = Pixels.of(np.zeros(masks.shape, np.int32), masks)
    np.testing.assert_array_equal(pixels.defective, np.flatnonzero(masks))
    dense = np.zeros(masks.shape)
    dense.ravel()[pixels.defective] = pixels.weights
    np.testing.assert_allclose(dense[0, :2, :3], 1 / 6)
    assert dense[0, 5, 5] == 1
    np.testing.assert_allclose(dense[2].diagonal(), 1 / 6)
    np.testing.assert_allclose(dense.sum((1, 2)), [2, 0, 1, 1], rtol=1e-6)
