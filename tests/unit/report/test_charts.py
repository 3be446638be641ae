"""Points of curves, charts whatever the names, and training curves."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from references import slow_pixel_figures
from scipy.integrate import trapezoid
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from omiad.errors import InputError
from omiad.report import training_curves
from omiad.report.charts import draw_histogram, draw_intervals, draw_rates, moving_average, svg
from omiad.report.curves import CategoryScores, Curve

HOSTILE = "<b>&\"' $x_1$ 漢字 \x07\udcff"


def scores(seed: int = 0, *, pixels: np.ndarray | None = None) -> CategoryScores:
    rng = np.random.default_rng(seed)
    labels = rng.random(60) < 0.4
    values = (rng.normal(size=60) + labels).round(1)  # with ties
    return CategoryScores(np.array(["a"] * 60), values, labels, pixels)


def test_image_curves_are_those_of_scikit_learn() -> None:
    given = scores()
    roc, pr = (given.curves[name] for name in ("image ROC", "image PR"))
    fpr, tpr, _ = roc_curve(given.is_anomalous, given.score, drop_intermediate=False)
    np.testing.assert_allclose(roc.x, fpr)
    np.testing.assert_allclose(roc.y, tpr)
    precision, recall, _ = precision_recall_curve(given.is_anomalous, given.score)
    # Ours has two points for each threshold, from the highest; theirs one, from the lowest.
    np.testing.assert_allclose(pr.x[1::2], recall[-2::-1])
    np.testing.assert_allclose(pr.y[1::2], precision[-2::-1])


def test_the_area_below_the_drawn_pro_curve_is_au_pro() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 2:6, 2:6] = masks[0, 10:12, 9:15] = masks[1, 4:12, 1:3] = True
    maps = (rng.integers(0, 40, masks.shape) + 8 * masks).astype(float)
    weights = np.zeros(masks.shape)
    for region, area in ((np.s_[0, 2:6, 2:6], 16), (np.s_[0, 10:12, 9:15], 12),
                         (np.s_[1, 4:12, 1:3], 16)):  # fmt: skip
        weights[region] = 1 / area
    levels = np.unique(maps)
    counts = np.array([[((maps == v) & ~masks).sum(), ((maps == v) & masks).sum(),
                        weights[maps == v].sum()] for v in levels]).T  # fmt: skip
    curve = scores(pixels=counts).curves["PRO"]
    expected = slow_pixel_figures(maps, masks)["aupro"]
    assert trapezoid(curve.y, curve.x) / 0.3 == pytest.approx(expected, abs=1e-9)
    assert curve.x[-1] == 0.3


def test_the_threshold_is_the_one_of_the_highest_f1() -> None:
    given = scores(3)
    assert given.threshold is not None
    reached = f1_score(given.is_anomalous, given.score >= given.threshold)
    assert reached == max(f1_score(given.is_anomalous, given.score >= t) for t in given.score)


def test_normal_images_alone_have_no_threshold_and_no_curve() -> None:
    normal = scores()._replace(is_anomalous=np.zeros(60, bool))
    assert normal.threshold is None
    assert normal.curves == {}


def test_charts_are_well_formed_whatever_the_names() -> None:
    x = np.linspace(0, 1, 5)
    curves = [None, Curve(x, x)]
    rates = svg(lambda axes: draw_rates(axes, curves, labels=("x", "y"), x_limit=0.3), salt=HOSTILE)
    one_value = svg(lambda axes: draw_histogram(axes, np.ones(3), np.ones(0), None), salt="a")
    rows = [[(50.0, 40.0, 60.0), None], [None, None]]
    intervals = svg(
        lambda axes: draw_intervals(axes, [HOSTILE, "x" * 60], rows), salt="b", box=None
    )
    for chart in (rates, one_value, intervals):
        ElementTree.fromstring(chart.replace("xlink:href", "href"))
    assert "漢字" in intervals
    assert "$x_1$" in intervals
    assert "\x07" not in intervals
    assert "x" * 23 + "…" in intervals


def test_a_chart_is_the_same_at_every_call_and_small_with_many_points() -> None:
    x = np.sort(np.random.default_rng(0).random(20_000))
    drawn = [
        svg(lambda axes: draw_rates(axes, [Curve(x, x**0.1)], labels=("", ""), x_limit=1), salt="a")
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) < 30_000


def test_an_average_moves_over_what_there_is() -> None:
    assert moving_average(np.array([1.0, 2.0, 6.0, 7.0]), 1).tolist() == [1.5, 3.0, 5.0, 6.5]


def test_every_training_figure_has_a_curve(tmp_path: Path) -> None:
    lines = ["epoch,step,train/a$_b,train/漢,test/c", "0,9,1.0,,3", "0,19,0.001,5,", "1,29,2,5,nan"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines), encoding="utf-8")
    training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")
    with Image.open(tmp_path / "curves.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    blue = (pixels == (11, 107, 203)).all(-1)
    assert [part.any() for part in np.array_split(blue, 2, axis=1)] == [True, True]


def test_a_file_without_training_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,test/c\n0,9,3\n")
    with pytest.raises(InputError, match=r"metrics.csv' has no finite train/\* figures"):
        training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")
