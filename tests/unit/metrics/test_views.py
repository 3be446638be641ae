from pathlib import Path

import numpy as np
import pytest

from omiad.metrics.views import view_figures
from omiad.types import Sample


def views_of(part: str | None) -> list[Sample]:
    """Return two views of a part; labels are given beside them."""
    return [
        Sample(Path(f"{part}{view}.jpg"), None, "usb", "good", "test", part, view)
        for view in (1, 2)
    ]


def test_a_sample_scores_as_its_highest_view_and_is_anomalous_if_one_is() -> None:
    views = [*views_of("a"), *views_of("b"), *views_of("c")]
    # The defect of the second part shows in its second view alone.
    labels = np.array([False, False, False, True, False, False])
    scores = np.array([1.0, 2.0, 3.0, 9.0, 4.0, 5.0])
    figures = view_figures(views, scores, labels)
    assert list(figures) == ["C2", "sample"]  # the first view shows no anomaly
    assert figures["sample"]["image_auroc"] == 1.0
    assert figures["C2"]["image_auroc"] == 1.0
    scores[4] = 10.0  # a false alarm in a view of a normal sample
    assert view_figures(views, scores, labels)["sample"]["image_auroc"] == pytest.approx(0.5)
    assert view_figures(views, scores, labels)["C2"]["image_auroc"] == 1.0


def test_images_of_no_sample_have_no_views() -> None:
    views = [*views_of("a"), views_of(None)[0]]
    assert view_figures(views, np.zeros(3), np.array([True, False, False])) == {}
