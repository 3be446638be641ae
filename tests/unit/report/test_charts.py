"""Points of curves, charts whatever the names, training curves, and the paper's rows."""

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from references import slow_pixel_figures
from scipy.integrate import trapezoid
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from omiad.data.layouts.published import PUBLISHED
from omiad.errors import InputError
from omiad.report import training_curves
from omiad.report.charts import chart, draw_histogram, draw_intervals, draw_rates, moving_average
from omiad.report.curves import CategoryScores, Curve
from omiad.report.tables import paper_rows

HOSTILE = "<b>&\"' $x_1$ 漢字 \x07\udcff"


def scores(pixels: np.ndarray | None = None) -> CategoryScores:
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    values = (rng.normal(size=60) + labels).round(1)  # with ties
    return CategoryScores(np.array(["a"] * 60), values, labels, pixels)


def test_image_curves_and_the_threshold_are_those_of_scikit_learn() -> None:
    given = scores()
    roc, pr = (given.curves[name] for name in ("image ROC", "image PR"))
    fpr, tpr, _ = roc_curve(given.is_anomalous, given.score, drop_intermediate=False)
    np.testing.assert_allclose([roc.x, roc.y], [fpr, tpr])
    precision, recall, _ = precision_recall_curve(given.is_anomalous, given.score)
    # Ours has two points for each threshold, from the highest; theirs one, from the lowest.
    np.testing.assert_allclose([pr.x[1::2], pr.y[1::2]], [recall[-2::-1], precision[-2::-1]])
    f1 = {t: f1_score(given.is_anomalous, given.score >= t) for t in given.score}
    assert given.threshold is not None
    assert f1[given.threshold] == max(f1.values())


def test_the_area_below_the_drawn_pro_curve_is_au_pro() -> None:
    rng = np.random.default_rng(0)
    masks, weights = np.zeros((2, 16, 16), bool), np.zeros((2, 16, 16))
    for region in (np.s_[0, 2:6, 2:6], np.s_[0, 10:12, 9:15], np.s_[1, 4:12, 1:3]):
        masks[region], weights[region] = True, 1 / masks[region].size
    maps = (rng.integers(0, 40, masks.shape) + 8 * masks).astype(float)
    counts = np.array([[((maps == v) & ~masks).sum(), ((maps == v) & masks).sum(),
                        weights[maps == v].sum()] for v in np.unique(maps)]).T  # fmt: skip
    curve = scores(counts).curves["PRO"]
    expected = slow_pixel_figures(maps, masks)["aupro"]
    assert trapezoid(curve.y, curve.x) / 0.3 == pytest.approx(expected, abs=1e-9)
    assert curve.x[-1] == 0.3


def test_charts_are_well_formed_whatever_the_names() -> None:
    x = np.linspace(0, 1, 5)
    rates = partial(draw_rates, curves=[None, Curve(x, x)], labels=("x", "y"), x_limit=0.3)
    one_value = partial(draw_histogram, normal=np.ones(3), defective=np.ones(0), threshold=None)
    rows = [[(50.0, 40.0, 60.0), None], [None, None]]
    intervals = partial(draw_intervals, categories=[HOSTILE, "x" * 60], runs=rows)
    drawn = [chart("", HOSTILE, draw)["svg"] for draw in (rates, one_value)]
    drawn.append(chart("", "a", intervals, box=None)["svg"])
    for svg in drawn:
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
    assert all(part in drawn[2] for part in ("漢字", "$x_1$", "x" * 23 + "…"))
    assert "\x07" not in drawn[2]


def test_a_chart_is_the_same_at_every_call_and_small_with_many_points() -> None:
    x = np.sort(np.random.default_rng(0).random(20_000))
    draw = partial(draw_rates, curves=[Curve(x, x**0.1)], labels=("", ""), x_limit=1)
    drawn = chart("", "a", draw)
    assert drawn == chart("", "a", draw)
    assert len(drawn["svg"]) < 30_000


def test_an_average_moves_over_what_there_is() -> None:
    average = moving_average(np.array([1.0, 2.0, 6.0, 7.0]), 1)
    np.testing.assert_allclose(average, [1.5, 3.0, 5.0, 6.5])


def test_every_training_figure_has_a_curve(tmp_path: Path) -> None:
    lines = ["epoch,step,train/a$_b,train/漢,test/c", "0,9,1.0,,3", "0,19,0.001,5,", "1,29,2,5,nan"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines), encoding="utf-8")
    training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")
    with Image.open(tmp_path / "curves.png") as picture:
        blue = (np.asarray(picture.convert("RGB")) == (11, 107, 203)).all(-1)
    assert [part.any() for part in np.array_split(blue, 2, axis=1)] == [True, True]


def test_a_file_without_training_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,test/c\n0,9,3\n")
    with pytest.raises(InputError, match=r"metrics.csv' has no finite train/\* figures"):
        training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")


@pytest.mark.parametrize("name", ["mvtec", "visa", "mpdd", "realiad"])
def test_the_paper_has_a_row_for_each_category_of_its_data_sets(name: str) -> None:
    categories = sorted(PUBLISHED[name].categories)
    rows = [row for row in paper_rows(categories) if row.method == "OmiAD"]
    assert {row.category for row in rows} == {*categories, None}
    assert all(row.is_papers and len(row.figures) >= 7 for row in rows)  # mAD of means alone


def test_the_papers_mean_is_that_of_its_first_table_and_of_the_same_categories() -> None:
    categories = sorted(PUBLISHED["mvtec"].categories)
    [mean] = [r for r in paper_rows(categories) if (r.category, r.method) == (None, "OmiAD")]
    assert (mean.figures["mad"], mean.figures["image_auroc"]) == (85.3, 98.8)
    assert {row.category for row in paper_rows(categories[:-1])} == set(categories[:-1])
    assert paper_rows(["bolt", "bottle"]) == paper_rows([]) == []
