"""How people call their folders and masks, and what the layouts make of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import write_mvtec

from omiad.data import FeatureDataModule
from omiad.data.check import check
from omiad.data.layouts import folder, index_dataset, mvtec
from omiad.data.layouts.listing import is_for_masks, is_normal, split_of_normal
from omiad.errors import InputError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def kinds(root: Path, **options: bool) -> Counter[str]:
    """Count the images by category, split and defect."""
    samples = index_dataset(root, **options).samples
    return Counter(f"{s.category} {s.split} {s.defect}" for s in samples)


def masks(root: Path) -> dict[str, list[str]]:
    """Return the masks of each defective image, by their paths."""
    return {
        sample.name(root): [mask.relative_to(root).as_posix() for mask in sample.masks]
        for sample in index_dataset(root).samples
        if sample.is_anomalous
    }


# Normal folders.


@pytest.mark.parametrize("name", ["good", "Good", "GOOD", "ok", "OK", "Ok", "normal", "Normal"])
@pytest.mark.parametrize("layout", ["mvtec", "visa", "folder"])
def test_normal_images_are_normal_whatever_their_folder_is_called(tmp_path, layout, name):
    root = tmp_path / "1cls" if layout == "visa" else tmp_path
    touch(root, f"nut/train/{name}/0.png", f"nut/test/{name}/1.png", "nut/test/nok/2.png")
    touch(root, f"nut/ground_truth/{name}/1.png")
    found = index_dataset(tmp_path, layout).samples
    assert {f"{s.split} {s.defect}" for s in found} == {"train good", "test good", "test nok"}
    assert not any(sample.masks for sample in found)


@pytest.mark.parametrize("name", ["OK", "normal"])
def test_all_normal_folders_of_a_category_count(tmp_path, name):
    touch(tmp_path / "a", "nut/train/good/0.png", f"nut/train/{name}/0.png", "nut/test/bad/0.png")
    touch(tmp_path / "a", "nut/test/good/0.png", f"nut/test/{name}/0.png")
    assert kinds(tmp_path / "a") == {"nut train good": 2, "nut test good": 2, "nut test bad": 1}
    touch(tmp_path / "b", "nut/good/0.png", f"nut/{name}/0.png")
    assert kinds(tmp_path / "b") == {"nut train good": 2}


def test_splits_may_be_in_upper_case(tmp_path):
    touch(tmp_path, "nut/Train/Good/0.png", "nut/TEST/OK/1.png", "nut/TEST/bad/2.png")
    touch(tmp_path, "nut/Ground_Truth/Bad/2_mask.png")
    assert kinds(tmp_path) == {"nut train good": 1, "nut test good": 1, "nut test bad": 1}
    assert masks(tmp_path) == {"nut/TEST/bad/2.png": ["nut/Ground_Truth/Bad/2_mask.png"]}


@pytest.mark.parametrize("name", ["good_test", "Test-OK", "test normal"])
def test_a_normal_folder_for_the_test_needs_no_folder_around_it(tmp_path, name):
    touch(tmp_path, *(f"nut/good/{i}.png" for i in range(10)), f"nut/{name}/0.png", "nut/bad/0.png")
    assert kinds(tmp_path) == {"nut train good": 10, "nut test good": 1, "nut test bad": 1}


@pytest.mark.parametrize("name", ["nok", "NG", "abnormal", "not_good", "good_2", "gut", "okay"])
def test_names_that_only_resemble_those_of_normal_folders_are_defects(name):
    assert not is_normal(name)


def test_the_name_of_a_folder_says_what_it_is_for():
    assert split_of_normal("OK") == ""
    assert split_of_normal("train_good") == "train"
    assert all(map(is_for_masks, ("Masks", "gt", "GT", "ground-truth", "GroundTruth", "mask")))
    assert not any(map(is_for_masks, ("solder_mask", "masked", "good")))


def test_the_check_names_folders_of_which_none_counts_as_normal(tmp_path, capsys):
    write_mvtec(tmp_path, np.random.default_rng(0), num_train=10)
    (tmp_path / "cable/test/good").rename(tmp_path / "cable/test/gut")
    (tmp_path / "bottle/test/hole").rename(tmp_path / "bottle/test/not_good")
    (tmp_path / "bottle/ground_truth/hole").rename(tmp_path / "bottle/ground_truth/not_good")
    assert check(str(tmp_path))
    out = capsys.readouterr().out
    assert "warning: no normal folder (1)\n  cable: " in out
    assert "'gut', 'hole' are all defects" in out
    assert "warning: doubtful defect (1)\n  bottle: By its name, 'not_good'" in out


# Categories beside one another.


def test_sorted_photographs_beside_a_product_with_a_split_are_read_alike(tmp_path):
    touch(tmp_path, "fabric/good/0.png", "gear/train/good/0.png", "gear/test/bad/0.png")
    touch(tmp_path, "docs/figure.txt")
    assert index_dataset(tmp_path).layout == "folder"
    assert kinds(tmp_path) == {"fabric train good": 1, "gear train good": 1, "gear test bad": 1}
    with pytest.raises(InputError, match=r"'fabric' in .* no 'train', unlike 'gear'"):
        mvtec.index(tmp_path)


def test_normal_images_beside_products_are_refused(tmp_path):
    touch(tmp_path, "good/0.png", "gear/train/good/0.png")
    with pytest.raises(InputError, match=r"normal images \('good'\) .* products \('gear'\)"):
        index_dataset(tmp_path)


# Test sets on their own.


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["nut/test/good/0.png", "nut/test/bad/0.png"], {"nut test good": 1, "nut test bad": 1}),
        (["test/good/0.png", "test/bad/0.png"], {"set test good": 1, "set test bad": 1}),
        (["nut/good/0.png", "nut/bad/0.png"], {"nut test good": 1, "nut test bad": 1}),
        (
            [f"good/{i}.png" for i in range(20)] + ["b/0.png"],
            {"set test good": 20, "set test b": 1},
        ),
        (["0.png", "1.png"], {"set test good": 2}),
        (["good/0.png", "good_test/1.png"], {"set train good": 1, "set test good": 1}),
        (["train/0.png", "test/ok/0.png"], {"set train good": 1, "set test good": 1}),
    ],
)
def test_all_of_a_test_set_on_its_own_is_tested(tmp_path, files, expected):
    touch(tmp_path / "set", *files)
    assert kinds(tmp_path / "set", for_test=True) == expected


def test_a_data_module_for_a_test_needs_no_training_images(tmp_path):
    touch(tmp_path / "set", *(f"good/{i}.png" for i in range(20)), "bad/0.png")
    data = FeatureDataModule(str(tmp_path / "set"))
    assert (len(data.samples("train")), len(data.samples("test"))) == (16, 5)
    data = FeatureDataModule(str(tmp_path / "set"))
    data.for_test = True
    assert (len(data.samples("train")), len(data.samples("test"))) == (0, 21)


# Masks.


def test_several_masks_of_an_image_are_all_found(tmp_path):
    touch(tmp_path / "nut", "train/good/0.png", "test/bad/000.png", "test/bad/000_1.png")
    given = [f"000_mask{end}" for end in (".png", "_1.png", "_2.bmp", "3.png", "-4.png")]
    touch(tmp_path / "nut/ground_truth/bad", *given, "000_1_mask.png", "000_maskless.png")
    found = {
        Path(image).stem: sorted(Path(m).name for m in own)
        for image, own in masks(tmp_path).items()
    }
    assert found == {"000": sorted(given), "000_1": ["000_1_mask.png"]}


@pytest.mark.parametrize("place", ["masks/bad", "masks", "GT", "gt/Bad"])
def test_images_of_one_stem_have_their_own_masks_or_are_refused(tmp_path, place):
    touch(tmp_path / "nut", "good/0.png", "bad/000.png", "bad/000.jpg", "bad/1.png")
    assert set(map(len, masks(tmp_path).values())) == {0}  # no mask, no doubt
    touch(tmp_path / "nut" / place, "000.png", "000.jpg", "1_mask.png")
    assert {Path(i).name: [Path(m).name for m in own] for i, own in masks(tmp_path).items()} == {
        "000.jpg": ["000.jpg"],
        "000.png": ["000.png"],
        "1.png": ["1_mask.png"],
    }
    (tmp_path / "nut" / place / "000.jpg").unlink()
    with pytest.raises(InputError, match=r"000\.png' may belong to .*000\.jpg' or to .*000\.png'"):
        index_dataset(tmp_path)
    (tmp_path / "nut" / place / "000.png").rename(tmp_path / "nut" / place / "000.png_mask.png")
    assert masks(tmp_path)["nut/bad/000.png"] == [f"nut/{place}/000.png_mask.png"]
    assert masks(tmp_path)["nut/bad/000.jpg"] == []


def test_a_mask_that_two_defects_may_own_is_refused(tmp_path):
    touch(tmp_path / "nut", "good/0.png", "dent/1.png", "scratch/1.png", "masks/1.png")
    with pytest.raises(InputError, match=r"dent/1\.png' or to .*scratch/1\.png'"):
        index_dataset(tmp_path)
    touch(tmp_path / "nut", "masks/dent/1.png")
    assert masks(tmp_path)["nut/dent/1.png"] == ["nut/masks/dent/1.png"]
    assert masks(tmp_path)["nut/scratch/1.png"] == ["nut/masks/1.png"]


def test_folders_of_masks_are_no_products_and_no_defects(tmp_path):
    touch(tmp_path, "bolt/0.png", "masks/0.png", "nut/good/0.png", "nut/GT/0.png")
    assert kinds(tmp_path) == {"bolt train good": 1, "nut train good": 1}
    samples = folder.index(tmp_path)
    assert {s.category for s in samples} == {"bolt", "nut"}


def test_the_figures_see_a_test_set_on_its_own(tmp_path):
    for name in ("good/0.png", "bad/0.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set" / name)
    data = FeatureDataModule(str(tmp_path / "set"), image_size=8)
    data.for_test = True
    data.setup("test")
    assert len(data.samples("test")) == 2
