from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omiad.errors import InputError
from omiad.report import PanelRow, heat, overlay, panel, training_curves
from omiad.report.curves import Axis


def row(level: float, *, masked: bool = True) -> PanelRow:
    image = np.full((32, 32, 3), 120, np.uint8)
    anomaly_map = np.full((32, 32), 1.0)
    anomaly_map[8:16, 8:16] = level
    mask = anomaly_map > 1 if masked else None
    return PanelRow(image, image, mask, anomaly_map, "scratch", level)


def test_colours_grow_lighter_with_the_score() -> None:
    colours = heat(np.linspace(0, 1, 50)[None])[0].astype(float)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()
    assert lightness[0] < 10
    assert lightness[-1] > 240


def test_an_image_below_the_scale_is_left_as_it_is() -> None:
    image = np.full((8, 8, 3), 120, np.uint8)
    assert (np.asarray(overlay(image, np.full((8, 8), 0.9), (1.0, 5.0))) == 120).all()


def test_the_same_score_has_the_same_colour_in_every_row() -> None:
    picture = np.asarray(panel([row(3.0), row(9.0)], (1.0, 9.0)))
    colours = {tuple(p) for p in picture.reshape(-1, 3)}
    for score in (1.0, 3.0, 9.0):
        assert tuple(heat(np.array([[(score - 1) / 8]]))[0, 0]) in colours


def test_a_panel_has_a_row_for_each_image() -> None:
    one, three = (panel([row(3.0)] * n, (1.0, 9.0)) for n in (1, 3))
    assert three.width == one.width
    assert three.height - one.height == 2 * (32 + 22 + 6)


def test_a_missing_mask_is_not_drawn_as_an_empty_one() -> None:
    unknown = row(3.0, masked=False)
    empty = unknown._replace(mask=np.zeros((32, 32), dtype=bool))
    assert panel([unknown], (1, 9)) == panel([unknown], (1, 9))
    assert panel([unknown], (1, 9)) != panel([empty], (1, 9))


def test_a_panel_without_a_normal_image_shows_no_other_in_its_place() -> None:
    alone = row(3.0)._replace(reference=None)
    columns = [np.asarray(panel([given], (1.0, 9.0)))[48:80, 6:38] for given in (row(3.0), alone)]
    assert (columns[0] == 120).all()
    assert (columns[1] == 120).all(-1).sum() == 0


def test_a_panel_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="at least one row"):
        panel([], (0, 1))


def test_a_reconstruction_takes_a_column_of_its_own_beside_the_input() -> None:
    plain = row(3.0)
    drawn = plain._replace(reconstruction=np.full((32, 32, 3), (9, 200, 30), np.uint8))
    narrow, wide = panel([plain], (1, 9)), panel([drawn], (1, 9))
    assert wide.width - narrow.width == (narrow.width - 6) // 5
    left, right = (np.argwhere((np.asarray(wide) == (9, 200, 30)).all(-1))[i, 1] for i in (0, -1))
    assert right - left == 31
    assert left == 6 + 2 * ((narrow.width - 6) // 5)


def test_rows_with_and_without_a_reconstruction_are_not_mixed() -> None:
    drawn = row(3.0)._replace(reconstruction=np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="every row of a panel its reconstruction, or none"):
        panel([row(3.0), drawn], (1, 9))


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(InputError, match="a map of its image's size"):
        overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4)), (0, 1))


def test_every_training_figure_has_a_curve(tmp_path: Path) -> None:
    lines = ["epoch,step,train/a,train/b,test/c", "0,9,1.0,,3", "0,19,0.001,5,", "1,29,2,5,nan"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (2 * 420, 30 + 240)
        assert len(picture.getcolors(100_000)) > 10


def test_a_file_without_training_figures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,test/c\n0,9,3\n")
    with pytest.raises(InputError, match=r"holds no train/\* figures"):
        training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", "AMDM")


@pytest.mark.parametrize("field", ["reference", "image", "mask", "anomaly_map"])
def test_a_panel_of_pictures_of_several_sizes_is_refused(field: str) -> None:
    other = row(3.0)
    wrong = other._replace(**{field: np.asarray(getattr(other, field))[:16]})
    with pytest.raises(InputError, match=f"{field} of 'scratch' is 16 x 32 in a panel of 32 x 32"):
        panel([row(3.0), wrong], (1.0, 9.0))


def test_headings_of_small_pictures_do_not_overlap() -> None:
    assert panel([row(3.0)], (1.0, 9.0)).width >= 5 * 105


def test_steps_are_marked_at_whole_numbers_once() -> None:
    axis = Axis(np.array([1.0, 3.0]), 0, 100, whole=True)
    assert axis.labels() == ["1", "2", "3"]


def test_marks_of_a_narrow_range_can_be_told_apart() -> None:
    labels = Axis(np.array([12345.1, 12346.0]), 0, 100).labels()
    assert labels == ["12345.5", "12346"]
    assert Axis(np.array([0.01, 100.0]), 0, 100, log=True).labels()[0] == "0.01"
    assert Axis(np.array([0.0, 1.6e-4]), 0, 100).labels() == ["0", "5e-5", "1e-4", "1.5e-4"]
