"""Errors and special cases of single layouts; tests/contracts has what all layouts promise."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_realiad, write_visa

from omiad.data.check.faults import find
from omiad.data.layouts import folder, index_dataset, mvtec, realiad, visa
from omiad.data.layouts.published import PUBLISHED, recognise
from omiad.errors import InputError

SPLIT = "split_csv/1cls.csv"
AUDIOJACK = "realiad_jsons/realiad_jsons/audiojack.json"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def visa_root(tmp_path):
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    return tmp_path / "VisA"


@pytest.fixture
def realiad_root(tmp_path):
    write_realiad(tmp_path / "Real-IAD", np.random.default_rng(0))
    return tmp_path / "Real-IAD"


# MVTec AD


def test_suffixes_match_in_any_case_and_other_files_are_ignored(tmp_path):
    names = ["a.PNG", "b.Jpg", "c.jpeg", "d.BMP", "e.tif", "f.TIFF", "g.webp"]
    others = ["notes.txt", ".hidden.png", "._a.PNG", "Thumbs.db"]
    touch(tmp_path / "nut/train/good", *names, *others)
    touch(tmp_path, "readme.txt", ".cache/train/x.png", "license/text.txt")
    assert [s.image.name for s in mvtec.index(tmp_path)] == names


def test_a_mask_may_have_the_name_of_its_image_but_the_mvtec_name_is_preferred(tmp_path):
    touch(tmp_path / "nut/train/good", "0.png")
    touch(tmp_path / "nut/test/bent", "0.JPG", "1.JPG", "2.JPG", "b_mask.JPG")
    masks = ("0_mask.png", "0.png", "1.bmp", "b_mask_mask.png")
    touch(tmp_path / "nut/ground_truth/bent", *masks)
    found = {s.image.stem: s.masks[0].name if s.masks else None for s in mvtec.index(tmp_path)[1:]}
    assert found == {"0": "0_mask.png", "1": "1.bmp", "2": None, "b_mask": "b_mask_mask.png"}


def test_a_relative_root_and_a_linked_category_are_followed(mvtec_root, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/bottle").symlink_to(mvtec_root / "bottle")
    monkeypatch.chdir(tmp_path)
    assert len(mvtec.index(Path("data"))) == 10


@pytest.mark.parametrize(
    ("files", "root", "message"),
    [
        (["images/0.png"], ".", "No category"),
        (["nut/train/good/0.png"], "nut", "nut' is a single category"),
        (["nut/test/good/0.png"], ".", r"nut' has no images in train/good.*\.png"),
    ],
)
def test_an_incomplete_mvtec_tree_is_rejected(tmp_path, files, root, message):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=message):
        mvtec.index(tmp_path / root)


# VisA


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / SPLIT).write_bytes((root / SPLIT).read_bytes().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / SPLIT).unlink(), f"'{SPLIT}' is missing"),
        (replaced(b"label", b"kind"), "no column label"),
        (replaced(b",train,", b",test,"), "no training image"),
        (replaced(b"test,anomaly", b"train,anomaly"), r"line \d+ of .* 'train' .* 'anomaly'"),
    ],
)
def test_a_broken_split_of_visa_is_rejected(visa_root, change, message):
    change(visa_root)
    assert visa.matches(visa_root)
    with pytest.raises(InputError, match=message):
        visa.index(visa_root)


# Real-IAD


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        split = json.loads((root / AUDIOJACK).read_text())
        change(split)
        (root / AUDIOJACK).write_text(json.dumps(split))

    return edit


def test_the_root_is_one_of_several_resolutions_of_real_iad(realiad_root):
    alone = index_dataset(realiad_root / "realiad_256")
    assert alone == index_dataset(realiad_root)
    write_realiad(realiad_root, np.random.default_rng(0), images="realiad_512")
    assert alone == index_dataset(realiad_root / "realiad_256")
    with pytest.raises(InputError, match=r"realiad_256', .*realiad_512'"):
        realiad.index(realiad_root)


def test_a_category_of_real_iad_without_images_is_left_out(realiad_root):
    (realiad_root / "realiad_256/audiojack").rename(realiad_root / "elsewhere")
    assert {s.category for s in realiad.index(realiad_root)} == {"bottle_cap"}
    (realiad_root / "realiad_256/bottle_cap").rename(realiad_root / "elsewhere2")
    with pytest.raises(InputError, match="'audiojack'"):
        realiad.index(realiad_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edited(lambda s: s["test"][2].pop("mask_path")),
            r"audiojack.json'.test\[2\] has .* mask_path",
        ),
        (edited(lambda s: s["train"][0].update(anomaly_class="AK")), r"image '.*' \(AK\)"),
        (edited(lambda s: s.pop("meta")), "audiojack.json' has no entry meta"),
        (lambda root: (root / AUDIOJACK).write_text("not json"), "audiojack.json' is not JSON"),
        (lambda root: (root / AUDIOJACK).write_text("[]"), "audiojack.json' is a list"),
    ],
)
def test_a_wrong_split_of_real_iad_is_rejected(realiad_root, change, message):
    change(realiad_root)
    with pytest.raises(InputError, match=message):
        realiad.index(realiad_root)


def test_a_defective_view_of_real_iad_without_mask_stays_defective(realiad_root):
    edited(lambda split: split["test"][5].update(mask_path=None))(realiad_root)
    samples = [s for s in realiad.index(realiad_root) if s.is_anomalous and not s.masks]
    assert [s.view for s in samples] == [1]


@pytest.mark.parametrize("jsons", ["realiad_jsons/realiad_jsons_sv", "realiad_jsons_sv"])
def test_the_single_view_splits_are_a_layout(realiad_root, jsons):
    with pytest.raises(InputError, match="'realiad_jsons_sv' is missing"):
        index_dataset(realiad_root, "realiad_sv")
    for path in (realiad_root / AUDIOJACK).parent.glob("*.json"):
        split = json.loads(path.read_text())
        for part in ("train", "test"):
            split[part] = [row for row in split[part] if "_C1_" in row["image_path"]]
        (realiad_root / jsons).mkdir(exist_ok=True)
        (realiad_root / jsons / path.name).write_text(json.dumps(split))
    all_views = index_dataset(realiad_root).samples
    single = index_dataset(realiad_root, "realiad_sv")
    assert single.samples == [s for s in all_views if s.view == 1]
    assert single.samples == index_dataset(realiad_root / "realiad_256", "realiad_sv").samples
    assert single.dataset == "realiad_sv"  # the published counts are of all views
    kinds = {fault.kind for fault in find(realiad_root, single, [])}
    assert not kinds & {"count", "stray mask", "category missing"}


# Folders


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["0.png", "1.png"], ["train good"] * 2),
        (["OK/0.png", "bad/0.png"], ["train good", "test bad"]),
        (["train/0.png", "test/good/1.png"], ["train good", "test good"]),
        (["train/good/0.png", "test/hole/1.png"], ["train good", "test hole"]),
        (["good/0.png", "mask/0.png"], ["train good"]),
    ],
)
def test_the_root_may_be_a_single_category(tmp_path, files, expected):
    touch(tmp_path / "screws", *files)
    found = index_dataset(tmp_path / "screws")
    assert found.layout == "folder"
    assert {s.category for s in found.samples} == {"screws"}
    assert [f"{s.split} {s.defect}" for s in found.samples] == expected


def test_a_fifth_of_the_normal_images_is_held_out_by_name(tmp_path):
    tested = []
    for first, last in ((0, 10), (10, 15)):
        touch(tmp_path / "nut", "bad/0.png", *(f"good/{i}.png" for i in range(first, last)))
        tested.append({s.image for s in folder.index(tmp_path) if s.split == "test"})
    assert [len(images) - 1 for images in tested] == [2, 3]
    assert len(tested[0] & tested[1]) > 1


def test_masks_are_found_with_and_without_a_folder_for_the_defect(tmp_path):
    touch(tmp_path / "nut", "good/0.png", "dent/1.png", "dent/2.png", "dent/3.png")
    touch(tmp_path / "nut", "masks/1.png", "ground_truth/dent/2_mask.png")
    masks = {s.image.stem: s.masks[0].name if s.masks else None for s in folder.index(tmp_path)}
    assert masks == {"0": None, "1": "1.png", "2": "2_mask.png", "3": None}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["0.png", "bolt/0.png"], r"folders of photographs \('bolt'\)"),
        (["bolt/train/notes.txt"], "bolt' has no normal images"),
    ],
)
def test_photographs_in_the_wrong_place_are_rejected(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(InputError, match=message):
        folder.index(tmp_path)


def test_a_published_data_set_is_recognised_by_half_of_its_categories():
    categories = list(PUBLISHED["mvtec"].categories)
    assert recognise(categories[:8]) == "mvtec"
    assert recognise(categories[:7]) is None
    assert recognise([*categories, "bolt"]) is None
    # Real-IAD shares names with MVTec AD: toothbrush and zipper.
    assert recognise(PUBLISHED["realiad"].categories) == "realiad"
