import os
import shutil
from pathlib import Path

import pytest

from omiad.data.layouts.mvtec import index
from omiad.errors import InputError, MissingInputError


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_every_image_is_listed_once_by_category_split_defect_and_name(mvtec_root):
    samples = index(mvtec_root)
    keys = [(s.category, s.split != "train", s.defect, s.image.name) for s in samples]
    assert keys == sorted(keys)
    assert len(samples) == len({s.image for s in samples}) == 2 * (4 + 3 + 3)
    assert all(s.image.is_file() for s in samples)


def test_defective_images_have_their_mask_and_normal_ones_none(mvtec_root):
    for sample in index(mvtec_root):
        if sample.is_anomalous:
            assert sample.mask is not None
            assert sample.mask.name == f"{sample.image.stem}_mask.png"
            assert sample.mask.is_file()
        else:
            assert sample.mask is None


def test_a_relative_root_and_a_linked_category_are_followed(mvtec_root, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bottle").symlink_to(mvtec_root / "bottle")
    monkeypatch.chdir(tmp_path)
    assert len(index(Path("data"))) == 10


def test_suffixes_count_without_regard_to_case_and_other_files_not_at_all(tmp_path):
    names = ["a.PNG", "b.Jpg", "c.jpeg", "d.BMP", "e.tif", "f.TIFF", "g.webp"]
    for name in [*names, "notes.txt", ".hidden.png", "._a.PNG", "Thumbs.db"]:
        touch(tmp_path / "nut" / "train" / "good" / name)
    touch(tmp_path / "readme.txt")
    touch(tmp_path / ".cache" / "train" / "x.png")
    touch(tmp_path / "license" / "text.txt")
    assert [s.image.name for s in index(tmp_path)] == names


def test_a_mask_may_be_called_like_its_image_and_the_mvtec_name_goes_before(tmp_path):
    touch(tmp_path / "nut" / "train" / "good" / "0.png")
    for stem in ("0", "1", "2", "b_mask"):
        touch(tmp_path / "nut" / "test" / "bent" / f"{stem}.JPG")
    for name in ("0_mask.png", "0.png", "1.bmp", "b_mask_mask.png"):
        touch(tmp_path / "nut" / "ground_truth" / "bent" / name)
    masks = {s.image.stem: s.mask and s.mask.name for s in index(tmp_path) if s.split == "test"}
    assert masks == {"0": "0_mask.png", "1": "1.bmp", "2": None, "b_mask": "b_mask_mask.png"}


def test_masks_of_good_images_are_ignored_and_test_is_optional(tmp_path):
    touch(tmp_path / "nut" / "train" / "good" / "0.png")
    touch(tmp_path / "nut" / "test" / "good" / "0.png")
    touch(tmp_path / "nut" / "ground_truth" / "good" / "0_mask.png")
    touch(tmp_path / "screw" / "train" / "good" / "0.png")
    samples = index(tmp_path)
    assert [(s.category, s.split, s.mask) for s in samples] == [
        ("nut", "train", None),
        ("nut", "test", None),
        ("screw", "train", None),
    ]


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"No folder '.*nowhere'. Give --data.root"):
        index(tmp_path / "nowhere")


def test_a_root_without_category_is_named(tmp_path):
    touch(tmp_path / "images" / "0.png")
    with pytest.raises(InputError, match=r"No category in .*Expected <category>/train/good/"):
        index(tmp_path)


def test_a_category_given_as_root_is_noticed(mvtec_root):
    with pytest.raises(InputError, match=r"'.*bottle' is a category itself"):
        index(mvtec_root / "bottle")


def test_a_category_without_train_good_is_named(mvtec_root, tmp_path):
    shutil.copytree(mvtec_root, tmp_path / "data")
    os.rename(tmp_path / "data/cable/train/good", tmp_path / "data/cable/train/ok")
    with pytest.raises(InputError, match=r"'.*cable' is a category without train/good"):
        index(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/cable/train")
    with pytest.raises(InputError, match=r"'.*cable' is a category without train/good"):
        index(tmp_path / "data")


def test_an_empty_train_good_is_named(mvtec_root, tmp_path):
    shutil.copytree(mvtec_root, tmp_path / "data")
    for image in (tmp_path / "data/cable/train/good").iterdir():
        image.unlink()
    with pytest.raises(InputError, match=r"cable/train/good' holds no images.*\.png"):
        index(tmp_path / "data")
