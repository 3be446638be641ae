"""The paper's rows, the page of predictions, and pages that are not overwritten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omiad.data.layouts.published import PUBLISHED
from omiad.errors import InputError
from omiad.report import PredictionPage, free_page
from omiad.report.tables import paper_rows


@pytest.mark.parametrize("name", ["mvtec", "visa", "mpdd", "realiad"])
def test_the_paper_has_a_row_for_each_category_of_its_data_sets(name: str) -> None:
    categories = sorted(PUBLISHED[name].categories)
    rows = [row for row in paper_rows(categories) if row.method == "OmiAD"]
    assert {row.category for row in rows} == {*categories, "mean"}
    assert all(row.is_papers and len(row.figures) >= 7 for row in rows)  # mAD of means alone


def test_the_papers_mean_is_that_of_its_first_table_and_of_the_same_categories() -> None:
    categories = sorted(PUBLISHED["mvtec"].categories)
    [mean] = [r for r in paper_rows(categories) if (r.category, r.method) == ("mean", "OmiAD")]
    assert (mean.figures["mad"], mean.figures["image_auroc"]) == (85.3, 98.8)
    assert {row.category for row in paper_rows(categories[:-1])} == set(categories[:-1])
    assert paper_rows(["bolt", "bottle"]) == paper_rows([]) == []


def test_a_page_of_predictions_keeps_the_most_anomalous(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    photograph = tmp_path / "wide.png"
    Image.new("RGB", (64, 32)).save(photograph)
    page = PredictionPage(tmp_path, scale=(0.0, 1.0), max_megabytes=0.02)
    for i in rng.permutation(40):
        pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        page.add(f"<b>/{i}.png", path=photograph, pixels=pixels,
                 anomaly_map=np.full((32, 32), i / 40), score=float(i))  # fmt: skip
    text = page.write().read_text()
    shown = text.count('"aspect":2.0')
    assert 3 < shown < 40
    assert f"The {shown} most anomalous of 40 photographs" in text
    for i in range(40):
        assert (f'/{i}.png"' in text) == (i >= 40 - shown)


def test_a_page_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(InputError, match=r"already holds a page\. Choose another --output"):
        free_page(tmp_path, option="--output")
