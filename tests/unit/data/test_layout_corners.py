"""The refusals and corners of single layouts; tests/contracts has what all promise."""

import json
from pathlib import Path

import numpy as np
import pytest
from synthetic import write_realiad, write_visa

from omiad.data.check.faults import find
from omiad.data.layouts import folder, index_dataset, realiad, visa
from omiad.data.layouts.published import PUBLISHED, recognise
from omiad.errors import InputError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.fixture
def visa_root(tmp_path):
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    return tmp_path / "VisA"


@pytest.fixture
def realiad_root(tmp_path):
    write_realiad(tmp_path / "Real-IAD", np.random.default_rng(0))
    return tmp_path / "Real-IAD"


def edit(root: Path, change) -> None:
    path = root / "realiad_jsons/realiad_jsons/audiojack.json"
    split = json.loads(path.read_text())
    change(split)
    path.write_text(json.dumps(split))


def test_raw_visa_without_its_split_is_explained(visa_root):
    (visa_root / "split_csv/1cls.csv").unlink()
    assert visa.matches(visa_root)
    with pytest.raises(InputError, match=r"as downloaded, but 'split_csv/1cls.csv' is missing"):
        visa.index(visa_root)


def test_a_split_of_visa_without_a_column_is_named(visa_root):
    split = visa_root / "split_csv/1cls.csv"
    split.write_text(split.read_text().replace("label", "kind"))
    with pytest.raises(InputError, match=r"1cls.csv' has no column label"):
        visa.index(visa_root)


def test_a_split_of_visa_that_trains_on_defects_is_refused_with_its_line(visa_root):
    split = visa_root / "split_csv/1cls.csv"
    lines = split.read_bytes().split(b"\r\n")
    lines[3] = b"candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,"
    split.write_bytes(b"\r\n".join(lines))
    with pytest.raises(InputError, match=r"In line 4 of .* split is 'train' and the label 'anom"):
        visa.index(visa_root)


def test_a_split_of_visa_without_training_images_is_refused(visa_root):
    split = visa_root / "split_csv/1cls.csv"
    split.write_bytes(split.read_bytes().replace(b",train,", b",test,"))
    with pytest.raises(InputError, match="lists no training image"):
        visa.index(visa_root)


def test_a_resolution_of_real_iad_is_a_root_of_its_own(realiad_root):
    whole = realiad.index(realiad_root)
    alone = index_dataset(realiad_root / "realiad_256")
    assert alone.layout == alone.dataset == "realiad"
    assert alone.samples == whole


def test_several_resolutions_of_real_iad_must_be_chosen_from(realiad_root):
    write_realiad(realiad_root, np.random.default_rng(0), images="realiad_512")
    with pytest.raises(InputError, match=r"several resolutions.*realiad_256', .*realiad_512'"):
        realiad.index(realiad_root)
    assert len(realiad.index(realiad_root / "realiad_512")) == 40


def test_a_category_of_real_iad_without_images_is_left_out(realiad_root):
    (realiad_root / "realiad_256/audiojack").rename(realiad_root / "elsewhere")
    assert {s.category for s in realiad.index(realiad_root)} == {"bottle_cap"}
    (realiad_root / "realiad_256/bottle_cap").rename(realiad_root / "elsewhere2")
    with pytest.raises(InputError, match=r"holds no folder of a category .*such as 'audiojack'"):
        realiad.index(realiad_root)


def test_a_row_of_real_iad_with_other_keys_is_refused(realiad_root):
    edit(realiad_root, lambda split: split["test"][2].pop("mask_path"))
    with pytest.raises(InputError, match=r"A row under 'test' of .* has the keys"):
        realiad.index(realiad_root)


def test_a_noisy_split_of_real_iad_is_refused(realiad_root):
    edit(realiad_root, lambda split: split["train"][0].update(anomaly_class="AK"))
    with pytest.raises(InputError, match=r"lists the defective .* for training. Use the folder"):
        realiad.index(realiad_root)


@pytest.mark.parametrize("content", ["not json", "[]", '{"meta": {}}'])
def test_a_broken_split_of_real_iad_is_named(realiad_root, content):
    (realiad_root / "realiad_jsons/realiad_jsons/audiojack.json").write_text(content)
    with pytest.raises(InputError, match=r"audiojack.json' is not a split of Real-IAD \("):
        realiad.index(realiad_root)


def test_a_defective_view_of_real_iad_without_mask_stays_defective(realiad_root):
    edit(realiad_root, lambda split: split["test"][5].update(mask_path=None))
    samples = [s for s in realiad.index(realiad_root) if s.is_anomalous and s.mask is None]
    assert [s.view for s in samples] == [1]


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
def test_a_root_may_be_a_single_category(tmp_path, files, expected):
    for name in files:
        touch(tmp_path / "screws" / name)
    found = index_dataset(tmp_path / "screws")
    assert found.layout == "folder"
    assert {s.category for s in found.samples} == {"screws"}
    assert [f"{s.split} {s.defect}" for s in found.samples] == expected


def test_a_fifth_of_the_normal_images_is_held_out_whatever_else_there_is(tmp_path):
    touch(tmp_path / "nut/bad/0.png")
    for i in range(10):
        touch(tmp_path / f"nut/good/{i}.png")

    def held_out() -> set[str]:
        return {
            s.image.name for s in folder.index(tmp_path) if s.split == "test" and not s.is_anomalous
        }

    before = held_out()
    assert len(before) == 2
    for i in range(10, 15):
        touch(tmp_path / f"nut/good/{i}.png")
    assert len(held_out()) == 3
    assert len(held_out() & before) >= 1


def test_masks_are_found_with_and_without_a_folder_for_the_defect(tmp_path):
    for name in (
        "good/0.png",
        "dent/1.png",
        "dent/2.png",
        "dent/3.png",
        "masks/1.png",
        "ground_truth/dent/2_mask.png",
    ):
        touch(tmp_path / "nut" / name)
    masks = {s.image.stem: s.mask and s.mask.name for s in folder.index(tmp_path)}
    assert masks == {"0": None, "1": "1.png", "2": "2_mask.png", "3": None}


def test_photographs_both_in_the_root_and_in_folders_are_refused(tmp_path):
    touch(tmp_path / "0.png")
    touch(tmp_path / "bolt/0.png")
    with pytest.raises(InputError, match=r"holds photographs itself and in folders \(bolt\)"):
        index_dataset(tmp_path)


def test_a_category_without_normal_images_is_named(tmp_path):
    touch(tmp_path / "bolt/train/notes.txt")
    with pytest.raises(InputError, match=r"bolt' has no normal images to train on. Put them in"):
        folder.index(tmp_path)


def test_a_published_data_set_is_recognised_by_half_of_its_categories():
    categories = list(PUBLISHED["mvtec"].categories)
    assert recognise(categories) == "mvtec"
    assert recognise(categories[:8]) == "mvtec"
    assert recognise(categories[:7]) is None
    assert recognise([*categories, "bolt"]) is None
    # Real-IAD shares names with MVTec AD: toothbrush and zipper.
    assert recognise(PUBLISHED["realiad"].categories) == "realiad"


@pytest.mark.parametrize("jsons", ["realiad_jsons/realiad_jsons_sv", "realiad_jsons_sv"])
def test_the_splits_of_a_single_view_are_a_layout_of_their_own(realiad_root, jsons):
    for path in (realiad_root / "realiad_jsons/realiad_jsons").glob("*.json"):
        split = json.loads(path.read_text())
        for part in ("train", "test"):
            split[part] = [row for row in split[part] if "_C1_" in row["image_path"]]
        (realiad_root / jsons).mkdir(exist_ok=True)
        (realiad_root / jsons / path.name).write_text(json.dumps(split))
    all_views = index_dataset(realiad_root)
    single = index_dataset(realiad_root, "realiad_sv")
    assert {s.view for s in all_views.samples} == {1, 2, 3, 4, 5}
    assert single.samples == [s for s in all_views.samples if s.view == 1]
    assert single.samples == index_dataset(realiad_root / "realiad_256", "realiad_sv").samples
    assert single.dataset == "realiad_sv"  # the published counts are of all views
    kinds = {fault.kind for fault in find(realiad_root, single, [])}
    assert not kinds & {"count", "stray mask", "category missing"}


def test_missing_splits_of_a_single_view_are_named(realiad_root):
    with pytest.raises(InputError, match=r"'realiad_jsons_sv' is missing"):
        realiad.index(realiad_root, jsons="realiad_jsons_sv")
