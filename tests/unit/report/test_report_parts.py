"""The parts of a report: points of curves, charts, the paper's rows, and pictures in a size."""

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from omiad.report.detection import CategoryScores, Curve, thinned
from PIL import Image
from references import slow_pixel_figures
from scipy.integrate import trapezoid
from sklearn.metrics import f1_score, precision_recall_curve, roc_curve

from omiad.data.layouts.published import PUBLISHED
from omiad.errors import InputError
from omiad.report import PredictionPage, free_page
from omiad.report.charts import Series, histogram, interval_chart, legend, line_chart
from omiad.report.pictures import Album, mask_picture, thumbnail
from omiad.report.tables import paper_rows

HOSTILE = "<b>&\"'"


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


def test_one_label_alone_has_no_threshold_and_no_curve() -> None:
    normal = scores()._replace(is_anomalous=np.zeros(60, bool))
    assert normal.threshold is None
    assert normal.curves == {}


def test_a_thinned_curve_keeps_its_ends_and_its_shape() -> None:
    x = np.linspace(0, 1, 5000)
    thin = thinned(Curve(x, np.sqrt(x)), 100)
    assert 50 < len(thin.x) <= 100
    assert (thin.x[0], thin.x[-1]) == (0, 1)
    assert np.abs(np.interp(x, thin.x, thin.y) - np.sqrt(x)).max() < 0.01


def test_charts_are_well_formed_whatever_the_names() -> None:
    rng = np.random.default_rng(0)
    line = Series(HOSTILE, np.arange(5.0), rng.random(5) + 0.1, 0)
    charts = [
        line_chart([line, line._replace(style=None)], title=HOSTILE, x_label=HOSTILE,
                   y_label=HOSTILE, log=True),
        histogram(rng.random(9), rng.random(0), 0.9, title=HOSTILE),
        histogram(np.ones(3), np.ones(2), None, title=HOSTILE),
        interval_chart([HOSTILE, "x" * 60], [(HOSTILE, [(50.0, 40.0, 60.0), None])], title=HOSTILE),
        legend([HOSTILE] * 8),
    ]  # fmt: skip
    for chart in charts:
        text = "".join(ElementTree.fromstring(chart).itertext())
        assert HOSTILE in text


def test_a_histogram_counts_every_image_once() -> None:
    drawn = ElementTree.fromstring(histogram(np.arange(10.0), np.arange(5, 25.0), 7.0, title="t"))
    tips = [rect.findtext("title") or "" for rect in drawn.iter("rect")]
    for what, total in (("normal", 10), ("defective", 20)):
        assert sum(int(tip.split()[0]) for tip in tips if what in tip) == total


@pytest.mark.parametrize("name", ["mvtec", "visa", "mpdd", "realiad"])
def test_the_paper_has_a_row_for_each_category_of_its_data_sets(name: str) -> None:
    categories = sorted(PUBLISHED[name].categories)
    rows = [row for row in paper_rows(categories) if row.method == "OmiAD"]
    assert {row.category for row in rows} == {*categories, "mean"}
    assert all(row.is_papers for row in rows)
    missing = {key for row in rows for key, value in row.figures.items() if value is None}
    assert missing <= {"mad"}  # printed of means alone


def test_the_papers_mean_stands_beside_one_of_the_same_categories_alone() -> None:
    most = sorted(PUBLISHED["mvtec"].categories)[:-1]
    assert {row.category for row in paper_rows(most)} == set(most)


def test_the_paper_has_no_row_of_other_data() -> None:
    assert paper_rows(["bolt", "bottle"]) == []
    assert paper_rows([]) == []


def test_the_papers_mean_is_the_one_of_its_first_table() -> None:
    rows = paper_rows(sorted(PUBLISHED["mvtec"].categories))
    mean = next(row for row in rows if (row.category, row.method) == ("mean", "OmiAD"))
    assert mean.figures["mad"] == 85.3
    assert mean.figures["image_auroc"] == 98.8


def test_an_album_is_never_larger_than_it_may_be(tmp_path: Path) -> None:
    album = Album(tmp_path, where="folder", max_megabytes=0.001)
    assert album.take((b"x" * 500, "jpg"), None) == ["pictures/00000.jpg", None]
    assert album.take((b"x" * 600, "jpg")) is None
    assert album.take((b"x" * 300, "png")) == ["pictures/00001.png"]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) == 800


def test_an_album_needs_room(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--max_megabytes must be above 0, but got nan"):
        Album(tmp_path, where="embedded", max_megabytes=float("nan"))


def test_a_mask_lets_its_photograph_through() -> None:
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    with Image.open(io.BytesIO(mask_picture(mask))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    alpha = pixels[..., 3]
    assert alpha[0, 0] == 0
    assert 0 < alpha[7, 7] < 128
    assert alpha[4, 4] == alpha[2, 2] == 255
    assert pixels[4, 4, :3].max() > 200  # shows on a dark photograph
    assert pixels[2, 2, :3].max() < 60  # and on a bright one


def test_a_thumbnail_is_cut_as_the_protocol_cuts() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[25:75, 50:150] = 255
    content = thumbnail(Image.fromarray(pixels), 80, kept_part=0.5)
    with Image.open(io.BytesIO(content)) as cut:
        assert cut.size == (80, 40)
        assert np.asarray(cut).min() > 250


def test_a_page_of_predictions_keeps_the_most_anomalous(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph = tmp_path / "wide.png"
    Image.new("RGB", (64, 32)).save(photograph)
    page = PredictionPage(tmp_path, scale=(0.0, 1.0), max_megabytes=0.02)
    for i in rng.permutation(40):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        page.add(f"{HOSTILE}/{i}.png", path=photograph, pixels=pixels,
                 anomaly_map=np.full((32, 32), i / 40), score=float(i))  # fmt: skip
    text = page.write().read_text()
    shown = text.count('"aspect":2.0')
    assert 3 < shown < 40
    assert f"The {shown} most anomalous of 40 photographs" in text
    for i in range(40):
        assert (f'/{i}.png"' in text) == (i >= 40 - shown)


def test_a_page_of_predictions_needs_room(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--max_megabytes must be above 0, but got 0"):
        PredictionPage(tmp_path, scale=(0.0, 1.0), max_megabytes=0)


def test_a_page_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match=r"already holds a page\. Choose another --output"):
        free_page(tmp_path, option="--output")
    with pytest.raises(InputError, match=r"is a file\. Give --out a folder"):
        free_page(tmp_path / "index.html")
