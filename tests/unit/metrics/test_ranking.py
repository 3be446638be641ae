"""Ranking metrics against scikit-learn, on scores of every kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from omiad.errors import InputError
from omiad.metrics.ranking import Ranking, area_up_to, auroc, average_precision, f1_max


def scores_of(kind: str, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    scores = torch.randn(len(labels), generator=generator) + labels
    return {
        "random": scores,
        "tied": (2 * scores).round(),
        "negative": scores - 50,
        "huge range": torch.exp(8 * scores),
        # Where torchmetrics' own AUROC saturates its sigmoid and answers 0.5.
        "narrow band near 40": 40 + 1e-3 * scores,
        "constant": torch.zeros(len(labels)),
    }[kind]


@pytest.mark.parametrize(
    "kind", ["random", "tied", "negative", "huge range", "narrow band near 40", "constant"]
)
def test_metrics_equal_scikit_learns(kind: str, generator: torch.Generator) -> None:
    labels = torch.rand(600, generator=generator) < 0.2
    scores = scores_of(kind, labels, generator)
    counts = Ranking(scores, labels).counts()
    truth, guess = labels.numpy(), scores.numpy()
    precision, recall, _ = precision_recall_curve(truth, guess)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert auroc(counts) == pytest.approx(roc_auc_score(truth, guess), abs=1e-12)
    assert average_precision(counts) == pytest.approx(
        average_precision_score(truth, guess), abs=1e-12
    )
    assert f1_max(counts) == pytest.approx(f1.max(), abs=1e-12)


def test_metrics_worked_by_hand() -> None:
    # Ranked: + - + -. AUROC 3/4; AP (1 + 2/3) / 2; best F1 at the third score: 4/5.
    counts = Ranking(
        torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, True, False])
    ).counts()
    assert auroc(counts) == 0.75
    assert average_precision(counts) == pytest.approx(5 / 6)
    assert f1_max(counts) == pytest.approx(0.8)


def test_a_ramp_has_half_its_limit_as_partial_area() -> None:
    # TPR = FPR for a useless score: the area to 1/3 is 1/18, divided by 1/3.
    labels = torch.arange(600) % 2 == 0
    counts = Ranking(torch.zeros(600), labels).counts()
    assert area_up_to(counts, 1 / 3) == pytest.approx(1 / 6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60))
def test_order_and_monotone_transforms_do_not_matter(rows: list[tuple[int, bool]]) -> None:
    labels = torch.tensor([label for _, label in rows])
    if labels.all() or not labels.any():
        return
    scores = torch.tensor([float(score) for score, _ in rows])
    counts = Ranking(scores, labels).counts()
    shuffle = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    for other in (
        Ranking(scores[shuffle], labels[shuffle]).counts(),
        Ranking(torch.exp(scores / 2) - 7, labels).counts(),
    ):
        assert auroc(other) == pytest.approx(auroc(counts))
        assert average_precision(other) == pytest.approx(average_precision(counts))
        assert f1_max(other) == pytest.approx(f1_max(counts))
    assert auroc(Ranking(-scores, labels).counts()) == pytest.approx(1 - auroc(counts))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "at least one score"),
        ([1.0, float("nan")], [True, False], "finite scores"),
        ([1.0, 2.0], [True, True], "all 2 are anomalous"),
        ([1.0, 2.0], [False, False], "all 2 are normal"),
        ([1.0, 2.0], [False, True, True], r"label for each score, but got \(3,\) for \(2,\)"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(
    scores: list[float], labels: list[bool], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Ranking(torch.tensor(scores), torch.tensor(labels, dtype=torch.bool))


def test_an_impossible_limit_is_refused() -> None:
    counts = Ranking(torch.tensor([1.0, 2.0]), torch.tensor([True, False])).counts()
    with pytest.raises(InputError, match=r"fpr_limit must lie in \(0, 1\], but got 2"):
        area_up_to(counts, 2)
