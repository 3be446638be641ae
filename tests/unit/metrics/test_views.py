import numpy as np
import pytest

from omiad.metrics.views import view_figures


def names_of(number: int, label: str) -> list[str]:
    folder = "OK" if label == "OK" else f"NG/{label}"
    return [
        f"usb_adaptor/{folder}/S{number:04}/usb_adaptor_{number:04}_{label}_C{view}_2023.jpg"
        for view in (1, 2)
    ]


def test_a_sample_scores_as_its_highest_view_and_is_anomalous_if_one_is() -> None:
    names = [*names_of(1, "OK"), *names_of(2, "NG_AK"), *names_of(3, "OK")]
    # The defect shows in the second view alone; its first view is labelled normal.
    labels = np.array([False, False, False, True, False, False])
    scores = np.array([1.0, 2.0, 3.0, 9.0, 4.0, 5.0])
    figures = view_figures(names, scores, labels)
    assert list(figures) == ["C2", "sample"]  # the first view shows no anomaly
    assert figures["sample"]["image_auroc"] == 1.0
    assert figures["C2"]["image_auroc"] == 1.0
    scores[4] = 10.0  # a false alarm in a view of a normal sample
    assert view_figures(names, scores, labels)["sample"]["image_auroc"] == pytest.approx(0.5)
    assert view_figures(names, scores, labels)["C2"]["image_auroc"] == 1.0


def test_other_names_have_no_views() -> None:
    names = [*names_of(1, "OK"), "bolt/test/good/000.png"]
    assert view_figures(names, np.zeros(3), np.array([True, False, False])) == {}
