"""Image figures by hand and against slow definitions, and those of views."""

from pathlib import Path

import numpy as np
import pytest
from references import slow_ranking

from omiad.metrics.images import Images, image_figures, view_figures
from omiad.metrics.ranking import IMAGE_FIGURES
from omiad.types import Sample


def test_image_figures_worked_by_hand() -> None:
    # Ranked: + + - + - - - - - - (three anomalies, seven normals).
    labels = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0], bool)
    figures = image_figures(np.arange(10.0, 0, -1), labels)
    assert figures["image_auroc"] == pytest.approx(20 / 21)
    assert figures["image_ap"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert figures["image_f1_max"] == pytest.approx(6 / 7)
    assert figures["image_fpr_at_num_anomalous"] == pytest.approx(1 / 7)  # one of the first three
    assert figures["image_fpr_at_recall_0.95"] == pytest.approx(1 / 7)
    assert figures["image_recall_at_fpr_0.01"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "transform",
    [
        lambda scores: scores,
        lambda scores: np.exp(8 * scores),
        np.zeros_like,
        lambda scores: 1e6 + 1e-9 * scores.round(1),  # one float32
    ],
)
def test_image_figures_equal_slow_definitions_on_scores_of_any_range(transform) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = transform(rng.normal(size=200) + labels)
    figures = image_figures(scores, labels)
    for name, value in slow_ranking(scores, labels).items():
        assert figures[f"image_{name}"] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_image_figures(label: bool) -> None:
    assert image_figures(np.arange(3.0), np.full(3, label)) == dict.fromkeys(IMAGE_FIGURES)


def test_images_are_sorted_by_index() -> None:
    images = Images.of({7: (0.5, True, False), 2: (1.5, False, True)})
    assert [column.tolist() for column in images] == [
        [2, 7], [1.5, 0.5], [False, True], [True, False],
    ]  # fmt: skip
    assert all(len(column) == 0 for column in Images.of({}))


def views_of(part: str | None) -> list[Sample]:
    """Return two views of a part."""
    return [
        Sample(Path(f"{part}{view}.jpg"), (), "usb", "good", "test", part, view) for view in (1, 2)
    ]


def test_a_sample_scores_as_its_highest_view_and_is_anomalous_if_one_is() -> None:
    views = [*views_of("a"), *views_of("b"), *views_of("c")]
    # Only the second view of the second part shows its defect.
    labels = np.array([False, False, False, True, False, False])
    scores = np.array([1.0, 2.0, 3.0, 9.0, 4.0, 5.0])
    figures = view_figures(views, scores, labels)
    assert list(figures) == ["C2", "sample"]  # the first view shows no anomaly
    assert figures["sample"]["image_auroc"] == figures["C2"]["image_auroc"] == 1.0
    scores[4] = 10.0  # a false alarm in a view of a normal sample
    assert view_figures(views, scores, labels)["sample"]["image_auroc"] == pytest.approx(0.5)
    assert view_figures(views, scores, labels)["C2"]["image_auroc"] == 1.0
    assert view_figures([*views[:5], views_of(None)[0]], scores, labels) == {}  # of no sample
