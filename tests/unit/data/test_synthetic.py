from pathlib import Path

import numpy as np
import pytest

from omiad.cli import main
from omiad.data.layouts import mvtec
from omiad.data.layouts.synthetic import DEFECTS, render, synthesize
from omiad.errors import InputError

KINDS = [(category, defect) for category, defects in DEFECTS.items() for defect in defects]
SMALL = {"num_train": 1, "num_test_good": 1, "num_test_defective": 3, "image_size": 32}


def pixels(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.png")}


def test_the_data_set_has_all_categories_and_defects(tmp_path):
    synthesize(tmp_path / "data", **SMALL)
    defective = [s for s in mvtec.index(tmp_path / "data") if s.is_anomalous]
    assert {(s.category, s.defect) for s in defective} == set(KINDS)
    assert all(s.masks for s in defective)


def test_an_image_depends_on_the_seed_but_not_on_the_number_of_others(tmp_path):
    made = {}
    for name, options in (("few", {}), ("more", {"num_train": 3}), ("other", {"seed": 1})):
        synthesize(tmp_path / name, categories=["gear"], **(SMALL | options))
        made[name] = pixels(tmp_path / name)
    assert len(made["more"]) == len(made["few"]) + 2
    assert made["few"].items() <= made["more"].items()
    assert made["few"] != made["other"]


@pytest.mark.parametrize(("category", "defect"), KINDS)
def test_a_mask_marks_a_part_of_the_image(category, defect):
    for index in range(4):
        _, mask = render(category, "test", index, defect=defect, image_size=48, seed=0)
        assert 0.001 < (mask > 0).mean() < 0.25


def test_a_defect_changes_the_photograph_only_inside_its_mask(monkeypatch):
    # A stain that changes nothing gives the normal photograph of the same scene, light and noise.
    image, mask = render("gear", "test", 0, defect="stain", image_size=64, seed=0)
    stain = DEFECTS["gear"]["stain"]

    def harmless(scene, x, y, rng):
        stain(scene, x, y, rng)  # draws the same random numbers
        return scene(x, y)

    monkeypatch.setitem(DEFECTS["gear"], "stain", harmless)
    normal, empty = render("gear", "test", 0, defect="stain", image_size=64, seed=0)
    assert not empty.any()
    change = np.abs(image.astype(int) - normal.astype(int)).max(-1)
    assert change[mask == 0].max() <= 12  # 8 / 255, lit by up to 1.2, rounded
    assert change[mask > 0].mean() > 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 0}, "num_train 0"),
        ({"image_size": 8}, "image_size 8"),
        ({"categories": ["car"]}, r"\['car'\]"),
    ],
)
def test_impossible_requests_are_rejected(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "data", **(SMALL | arguments))


def test_a_folder_that_is_not_empty_is_rejected(tmp_path):
    (tmp_path / "mine.png").touch()
    with pytest.raises(InputError, match="not an empty folder"):
        synthesize(tmp_path, **SMALL)


def test_the_command_writes_a_data_set(tmp_path):
    few = ["--num_train=1", "--num_test_good=1", "--num_test_defective=1", "--image_size=16"]
    main(["data", "synthesize", str(tmp_path / "made"), *few, "--categories=[gear]", "--seed=3"])
    assert len(mvtec.index(tmp_path / "made")) == 3
