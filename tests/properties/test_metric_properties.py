"""Theorems that hold for the pixel figures of any scores."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from references import slow_ranking

from omiad.metrics import PixelDetection
from omiad.metrics.detection import PIXEL_METRICS
from omiad.metrics.images import image_figures

SHAPE = (3, 6, 7)
# Few levels, so that most scores are tied; offset and step move them to any sign and range.
LEVELS = npst.arrays(np.int64, SHAPE, elements=st.integers(0, 6))
SCORES = npst.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32))
MASKS = npst.arrays(np.bool_, SHAPE).filter(lambda masks: masks.any() and not masks.all())
SCALES = st.tuples(
    st.sampled_from([-1e4, -3.0, 0.0, 40.0]), st.sampled_from([2.0**-6, 1.0, 2.0**10])
)

theorem = settings(max_examples=25, deadline=None, derandomize=True)


def scores_from(levels: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    offset, step = scale
    scores = (offset + step * levels).astype(np.float32)
    assume(len(np.unique(scores)) == len(np.unique(levels)))  # float32 keeps every level apart
    return scores


def counted(
    maps: np.ndarray, masks: np.ndarray, batches: list[int], max_bins: int = 2**17
) -> PixelDetection:
    metric = PixelDetection(max_bins=max_bins)
    scores, labels = torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks.copy())
    for rows in torch.arange(len(maps)).split(batches):
        metric.update(scores[rows], labels[rows], rows)
    return metric


def figures_of(maps: np.ndarray, masks: np.ndarray, batches: list[int]) -> dict[str, float]:
    figures = counted(maps, masks, batches).compute()
    assert all(figure is not None and figure.bound == 0 for figure in figures.values())
    return {name: figures[name].value for name in PIXEL_METRICS}


@theorem
@given(LEVELS, MASKS, SCALES)
def test_pixel_figures_equal_scikit_learns_on_tied_scores_of_any_range(
    levels: np.ndarray, masks: np.ndarray, scale: tuple[float, float]
) -> None:
    maps = scores_from(levels, scale)
    figures = figures_of(maps, masks, [3])
    for name, value in slow_ranking(maps, masks).items():
        if f"pixel_{name}" in figures:
            assert figures[f"pixel_{name}"] == pytest.approx(value, abs=1e-12), name


@theorem
@given(LEVELS, MASKS, SCALES)
def test_a_monotone_transform_changes_no_figure(
    levels: np.ndarray, masks: np.ndarray, scale: tuple[float, float]
) -> None:
    plain = figures_of(levels, masks, [3])
    assert figures_of(scores_from(levels, scale), masks, [3]) == plain
    assert figures_of(np.exp(levels), masks, [3]) == plain


@theorem
@given(SCORES, MASKS, st.permutations(range(3)), st.sampled_from([[1, 2], [1, 1, 1]]),
       st.integers(2, 40))  # fmt: skip
def test_order_and_batches_change_no_bound_and_every_bound_holds_the_exact_figure(
    maps: np.ndarray, masks: np.ndarray, order: list[int], batches: list[int], max_bins: int
) -> None:
    exact = counted(maps, masks, [3]).compute()
    whole = counted(maps, masks, [3], max_bins).compute()
    for name, ends in counted(maps[order], masks[order], batches, max_bins).compute().items():
        assert ends == pytest.approx(whole[name], abs=1e-12)
        assert ends.low - 1e-9 <= exact[name].value <= ends.high + 1e-9, name


@theorem
@given(LEVELS, MASKS)
def test_figures_lie_between_zero_and_one_perfect_maps_reach_one_and_inverted_ones_mirror_auroc(
    levels: np.ndarray, masks: np.ndarray
) -> None:
    figures = figures_of(levels, masks, [3])
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in figures.values())
    perfect = figures_of(levels + 7 * masks, masks, [3])  # all defects above all normal pixels
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-6)
    inverted = figures_of(-levels, masks, [3])
    assert inverted["pixel_auroc"] == pytest.approx(1 - figures["pixel_auroc"])


@theorem
@given(st.integers(1, 40), st.integers(1, 40), st.floats(-1e6, 1e6, width=32))
def test_a_constant_score_is_worth_what_guessing_is(
    positives: int, negatives: int, score: float
) -> None:
    labels = np.arange(positives + negatives) < positives
    figures = image_figures(np.full(len(labels), score), labels)
    share = positives / (positives + negatives)
    assert figures["image_auroc"] == pytest.approx(0.5)
    assert figures["image_ap"] == pytest.approx(share)
    assert figures["image_f1_max"] == pytest.approx(2 * share / (1 + share))
