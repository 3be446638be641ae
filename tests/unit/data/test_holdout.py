from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import write_mvtec, write_realiad

from omiad.data.holdout import FAINT_VISIBLE, MIN_AREA, VISIBLE, deface, hold_out
from omiad.data.holdout.pasting import DEFECTS, blot, find_foreground
from omiad.data.layouts import index_dataset
from omiad.data.layouts.synthetic import synthesize
from omiad.data.masks import load_mask
from omiad.errors import InputError
from omiad.photographs import load_image
from omiad.types import Sample


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    root = tmp_path_factory.mktemp("products") / "data"
    few = {"num_train": 8, "num_test_good": 1, "num_test_defective": 1, "image_size": 64}
    synthesize(root, categories=("bricks", "gear"), **few)
    return root


@pytest.fixture(scope="module")
def held(products, tmp_path_factory):
    output = tmp_path_factory.mktemp("held") / "out"
    hold_out(products, output, num_defective=16)
    return output


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_training_images_are_split_and_no_test_image_is_used(products, held):
    samples = index_dataset(held).samples
    for category in ("bricks", "gear"):
        normal = [s for s in samples if s.category == category and not s.is_anomalous]
        origin = {sample.image.resolve() for sample in normal}
        assert origin == set((products / category / "train" / "good").resolve().iterdir())
        assert [s.split for s in normal].count("test") == 2
        defects = [s.defect for s in samples if s.category == category and s.is_anomalous]
        assert sorted(defects) == sorted([*DEFECTS, *DEFECTS])


def test_the_mask_marks_the_pixels_that_changed(products, held):
    normal = [load_image(s.image) for s in index_dataset(products).samples if s.split == "train"]
    for sample in index_dataset(held).samples:
        if sample.is_anomalous:
            changed = load_image(sample.image).astype(int)
            mask = load_mask(sample.masks, image=sample.image)
            change = min((np.abs(changed - x).max(axis=2) for x in normal), key=np.sum)
            np.testing.assert_array_equal(change >= VISIBLE, mask)
            assert MIN_AREA <= mask.mean() < 0.5


def test_faint_defects_are_smaller_and_fainter(products, held, tmp_path):
    hold_out(products, tmp_path / "faint", num_defective=16, faint=True)
    normal = [load_image(s.image) for s in index_dataset(products).samples if s.split == "train"]
    size, strength = {}, {}
    for folder in (held, tmp_path / "faint"):
        found = [s for s in index_dataset(folder).samples if s.is_anomalous]
        masks = [load_mask(s.masks, image=s.image) for s in found]
        pictures = [load_image(s.image).astype(int) for s in found]
        changes = [min((np.abs(p - x).max(axis=2) for x in normal), key=np.sum) for p in pictures]
        size[folder.name] = np.median([mask.mean() for mask in masks])
        medians = [np.median(c[m]) for c, m in zip(changes, masks, strict=True)]
        strength[folder.name] = np.median(medians)
        assert min(medians) >= FAINT_VISIBLE - 1  # a median of rounded changes
    assert size["faint"] < size["out"] / 2
    assert strength["faint"] < strength["out"]


def test_the_seed_decides_every_byte(products, held, tmp_path):
    hold_out(products, tmp_path / "same", num_defective=16)
    hold_out(products, tmp_path / "other", num_defective=16, seed=1)
    assert files(tmp_path / "same") == files(held)
    assert files(tmp_path / "other") != files(held)


def test_all_views_of_a_part_are_held_out_together(tmp_path):
    write_realiad(tmp_path / "realiad", np.random.default_rng(0), num_train=4)
    hold_out(tmp_path / "realiad", tmp_path / "out", num_defective=1)
    origins = {s.image.resolve(): s.sample_id for s in index_dataset(tmp_path / "realiad").samples}
    normal = [s for s in index_dataset(tmp_path / "out").samples if not s.is_anomalous]
    parts = {(origins[s.image.resolve()], s.split) for s in normal}
    assert len(parts) == 2 * 4
    assert len([split for _, split in parts if split == "test"]) == 2 * 2


def test_the_foreground_differs_from_the_border_unless_it_fills_the_image():
    picture = np.full((60, 80, 3), 200, np.float32)
    picture[20:40, 30:60] = 20
    picture[28:32, 40:50] = 200  # a hole belongs to the product
    expected = np.zeros((60, 80), bool)
    expected[20:40, 30:60] = True
    assert (find_foreground(picture) ^ expected).mean() < 0.01
    noise = np.random.default_rng(0).uniform(0, 255, (40, 40, 3)).astype(np.float32)
    assert find_foreground(noise).all()


def test_a_blot_touches_the_foreground():
    foreground = np.zeros((64, 64), bool)
    foreground[10:20, 40:50] = True
    for seed in range(20):
        shape = blot(foreground, np.random.default_rng(seed))
        rows, columns = np.nonzero(shape > 0.4)
        assert np.hypot(rows - 15, columns - 45).min() < 12


@pytest.mark.parametrize("options", [{"fraction": 0.0}, {"fraction": 1.0}, {"num_defective": 0}])
def test_numbers_out_of_range_are_rejected(products, tmp_path, options):
    with pytest.raises(InputError, match=r"fraction .* num_defective"):
        hold_out(products, tmp_path / "out", **options)


def test_an_output_that_is_not_empty_is_rejected(products):
    with pytest.raises(InputError, match="not an empty folder"):
        hold_out(products, products)


def test_a_category_of_few_images_is_rejected(tmp_path):
    write_mvtec(tmp_path / "data", np.random.default_rng(0), num_train=3)
    with pytest.raises(InputError, match=r"'bottle' has 3 .* at least 4"):
        hold_out(tmp_path / "data", tmp_path / "out")


def test_all_unreadable_images_are_named_and_nothing_is_written(tmp_path):
    write_mvtec(tmp_path / "data", np.random.default_rng(0), num_train=5)
    broken = sorted((tmp_path / "data").glob("*/train/good/*.png"))[::4]
    for path in broken:
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{len(broken)} files") as error:
        hold_out(tmp_path / "data", tmp_path / "out")
    assert all(str(path) in str(error.value) for path in broken)
    assert not (tmp_path / "out").exists()


def test_an_image_too_small_for_a_defect_is_rejected(tmp_path):
    path = tmp_path / "dot.png"
    Image.new("RGB", (1, 1)).save(path)
    sample = Sample(path, (), "dot", "good", "train")
    with pytest.raises(InputError, match=r"'missing' .*dot.png"):
        deface(sample, "missing", [sample], seed=0)
