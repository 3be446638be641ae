"""Theorems that the metrics must satisfy whatever the scores are."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from omiad.metrics import PixelDetection, au_pro
from omiad.metrics.detection import PIXEL_METRICS
from omiad.metrics.ranking import Ranking, auroc, average_precision, f1_max

SHAPE = (3, 6, 7)
# Few levels, so that most scores are tied; offset and step move them to any sign and range.
LEVELS = npst.arrays(np.int64, SHAPE, elements=st.integers(0, 6))
MASKS = npst.arrays(np.bool_, SHAPE)
SCALES = st.tuples(
    st.sampled_from([-1e4, -3.0, 0.0, 40.0]), st.sampled_from([2.0**-6, 1.0, 2.0**10])
)

theorem = settings(max_examples=25, deadline=None, derandomize=True)


def scores_from(levels: np.ndarray, scale: tuple[float, float]) -> torch.Tensor:
    offset, step = scale
    scores = torch.from_numpy(offset + step * levels).float()
    assert len(scores.unique()) == len(np.unique(levels))  # float32 keeps every level apart
    return scores


def figures_of(maps: torch.Tensor, masks: torch.Tensor, batches: list[int]) -> dict[str, float]:
    metric = PixelDetection()
    for rows in torch.arange(len(maps)).split(batches):
        metric.update(maps[rows], masks[rows])
    figures = metric.compute()
    assert all(figure is not None and figure.bound == 0 for figure in figures.values())
    return {name: figures[name].value for name in PIXEL_METRICS}


@theorem
@given(LEVELS, MASKS, SCALES)
def test_pixel_figures_equal_scikit_learns_on_tied_scores_of_any_range(
    levels: np.ndarray, masks: np.ndarray, scale: tuple[float, float]
) -> None:
    assume(masks.any() and not masks.all())
    maps = scores_from(levels, scale)
    figures = figures_of(maps, torch.from_numpy(masks), [3])
    truth, guess = masks.ravel(), maps.numpy().ravel()
    precision, recall, _ = precision_recall_curve(truth, guess)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(truth, guess), abs=1e-12)
    assert figures["pixel_ap"] == pytest.approx(average_precision_score(truth, guess), abs=1e-12)
    assert figures["pixel_f1_max"] == pytest.approx(f1.max(), abs=1e-12)


@theorem
@given(LEVELS, MASKS, SCALES)
def test_a_monotone_transform_changes_no_figure(
    levels: np.ndarray, masks: np.ndarray, scale: tuple[float, float]
) -> None:
    assume(masks.any() and not masks.all())
    labels = torch.from_numpy(masks)
    plain = figures_of(torch.from_numpy(levels).float(), labels, [3])
    assert figures_of(scores_from(levels, scale), labels, [3]) == plain
    assert figures_of(torch.from_numpy(np.exp(levels)).float(), labels, [3]) == plain


@theorem
@given(LEVELS, MASKS, st.permutations(range(3)), st.sampled_from([[1, 2], [2, 1], [1, 1, 1]]))
def test_neither_order_nor_batches_of_images_change_a_figure(
    levels: np.ndarray, masks: np.ndarray, order: list[int], batches: list[int]
) -> None:
    assume(masks.any() and not masks.all())
    maps, labels = torch.from_numpy(levels).float(), torch.from_numpy(masks)
    other = figures_of(maps[order], labels[order], batches)
    assert other == pytest.approx(figures_of(maps, labels, [3]), abs=1e-9)


@theorem
@given(
    npst.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32)),
    MASKS,
    st.permutations(range(3)),
    st.integers(2, 40),
)
def test_no_split_into_batches_or_order_changes_a_coarse_figure_or_its_bound(
    maps: np.ndarray, masks: np.ndarray, order: list[int], max_bins: int
) -> None:
    assume(masks.any() and not masks.all())
    whole, parts = PixelDetection(max_bins=max_bins), PixelDetection(max_bins=max_bins)
    scores, labels = torch.from_numpy(maps), torch.from_numpy(masks)
    whole.update(scores, labels)
    for row in order:
        parts.update(scores[row : row + 1], labels[row : row + 1])
    for name, (low, high) in parts.compute().items():
        assert (low, high) == pytest.approx(whole.compute()[name], abs=1e-12)


@theorem
@given(
    npst.arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32)),
    MASKS,
    st.integers(2, 40),
)
def test_the_exact_figure_lies_within_every_bound(
    maps: np.ndarray, masks: np.ndarray, max_bins: int
) -> None:
    assume(masks.any() and not masks.all())
    coarse, fine = PixelDetection(max_bins=max_bins), PixelDetection()
    for metric in (coarse, fine):
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
    exact = fine.compute()
    for name, (low, high) in coarse.compute().items():
        assert low - 1e-9 <= exact[name].value <= high + 1e-9, name


@theorem
@given(LEVELS, MASKS)
def test_turning_images_over_leaves_the_overlap_of_regions(
    levels: np.ndarray, masks: np.ndarray
) -> None:
    assume(masks.any() and not masks.all())
    maps, labels = torch.from_numpy(levels), torch.from_numpy(masks)
    expected = pytest.approx(au_pro(maps, labels), abs=1e-6)
    assert au_pro(maps.flip(1), labels.flip(1)) == expected
    assert au_pro(maps.mT, labels.mT) == expected


@theorem
@given(LEVELS, MASKS)
def test_every_figure_lies_between_zero_and_one_and_perfect_maps_reach_one(
    levels: np.ndarray, masks: np.ndarray
) -> None:
    assume(masks.any() and not masks.all())
    maps, labels = torch.from_numpy(levels).float(), torch.from_numpy(masks)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in figures_of(maps, labels, [3]).values())
    perfect = figures_of(maps + 7 * labels, labels, [3])  # every defect above every normal pixel
    assert perfect == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-6)


@theorem
@given(st.integers(1, 40), st.integers(1, 40), st.floats(-1e6, 1e6, width=32))
def test_a_constant_score_is_worth_what_guessing_is(
    positives: int, negatives: int, score: float
) -> None:
    labels = torch.arange(positives + negatives) < positives
    counts = Ranking(torch.full(labels.shape, score), labels).counts()
    share = positives / (positives + negatives)
    assert auroc(counts) == pytest.approx(0.5)
    assert average_precision(counts) == pytest.approx(share)
    assert f1_max(counts) == pytest.approx(2 * share / (1 + share))
