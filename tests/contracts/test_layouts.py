"""What every layout promises, tested on a tree with the quirks of the real data set."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import (
    write_folder,
    write_mpdd,
    write_mvtec,
    write_realiad,
    write_visa,
    write_visa_prepared,
)

from omiad.data.images import read_image, read_mask
from omiad.data.layouts import INDEXES, detect, index_dataset
from omiad.data.layouts.published import PUBLISHED
from omiad.data.layouts.synthetic import synthesize
from omiad.errors import InputError, MissingInputError
from omiad.types import Sample

Write = Callable[[Path, np.random.Generator], None]


def _write_synthetic(root: Path, _: np.random.Generator) -> None:
    synthesize(
        root,
        num_train=2,
        num_test_good=1,
        num_test_defective=2,
        image_size=32,
        categories=("board", "gear"),
    )


@pytest.fixture(scope="class")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.cls.__name__) / "data"
    request.cls.write(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="class")
def samples(request: pytest.FixtureRequest, root: Path) -> list[Sample]:
    return INDEXES[request.cls.layout](root)


class LayoutContract:
    """The promises; each layout is a subclass."""

    layout: str
    detected: str | None = None
    """The layout that "auto" detects, if it is another name for the same index."""
    write: Write
    categories: tuple[str, ...]
    dataset: str = "data"
    counts: tuple[int, int, int]
    """Training, normal test and defective test images in all."""
    missing_masks: int = 0
    defects_are_dark: bool = True
    incomplete: str
    """Pattern of the error for an empty root."""

    def test_the_layout_is_detected_from_the_folders(self, root, samples):
        found = index_dataset(root)
        assert found.layout == (self.detected or self.layout)
        assert found.samples == samples
        assert found.dataset == self.dataset

    def test_every_image_is_listed_once_in_its_split(self, samples):
        train = [s for s in samples if s.split == "train"]
        test = [s for s in samples if s.split == "test"]
        bad = [s for s in test if s.is_anomalous]
        assert (len(train), len(test) - len(bad), len(bad)) == self.counts
        assert len({s.image for s in samples}) == len(samples)
        assert not any(s.is_anomalous for s in train)
        assert all(s.image.is_file() for s in samples)

    def test_categories_are_sorted_and_training_images_come_first(self, samples):
        keys = [(s.category, s.split == "test") for s in samples]
        assert keys == sorted(keys)
        assert tuple(sorted({s.category for s in samples})) == self.categories

    def test_masks_belong_to_defects_and_match_their_images(self, samples):
        assert all(s.mask is None for s in samples if not s.is_anomalous)
        bad = [s for s in samples if s.is_anomalous]
        masks = [(s, s.mask) for s in bad if s.mask is not None]
        assert len(masks) == len(bad) - self.missing_masks
        for sample, path in masks:
            mask = read_mask(path, 32, image=sample.image).numpy()
            assert mask.any()
            if self.defects_are_dark:  # .jpg is not exactly black
                assert read_image(sample.image, 32).numpy().max(0)[mask].mean() < 40

    def test_the_index_opens_no_image(self, root, samples, monkeypatch):
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("an image was opened")

        monkeypatch.setattr(Image, "open", refuse)
        assert INDEXES[self.layout](root) == samples

    def test_a_missing_or_empty_root_is_rejected(self, tmp_path):
        with pytest.raises(MissingInputError, match="nowhere"):
            INDEXES[self.layout](tmp_path / "nowhere")
        with pytest.raises(InputError, match=self.incomplete):
            INDEXES[self.layout](tmp_path)


class TestMVTec(LayoutContract):
    layout = "mvtec"
    write = staticmethod(write_mvtec)
    categories = ("bottle", "cable")
    counts = (8, 6, 6)
    incomplete = "No category in"


class TestMPDD(LayoutContract):
    layout = "mpdd"
    detected = "mvtec"
    write = staticmethod(write_mpdd)
    dataset = "mpdd"
    categories = ("connector", "metal_plate", "tubes")
    counts = (12, 9, 9)
    incomplete = "No category in"


class TestSynthetic(LayoutContract):
    layout = "synthetic"
    detected = "mvtec"
    write = staticmethod(_write_synthetic)
    categories = ("board", "gear")
    counts = (4, 2, 4)
    defects_are_dark = False
    incomplete = "No category in .*omiad data synthesize"


class TestVisA(LayoutContract):
    layout = "visa"
    write = staticmethod(write_visa)
    dataset = "visa"
    categories = ("candle", "pcb1")
    counts = (8, 6, 6)
    incomplete = "No category in"


class TestVisAPrepared(TestVisA):
    write = staticmethod(write_visa_prepared)


class TestVisAPreparedByAnomalib(TestVisA):
    @staticmethod
    def write(root: Path, rng: np.random.Generator) -> None:
        write_visa_prepared(root, rng, folder="visa_pytorch")


class TestRealIAD(LayoutContract):
    layout = "realiad"
    write = staticmethod(write_realiad)
    dataset = "realiad"
    categories = ("audiojack", "bottle_cap")
    counts = (20, 12, 8)
    incomplete = "No splits of Real-IAD for .*realiad_jsons.zip"

    def test_parts_and_views_come_from_the_file_name(self, samples):
        assert {s.view for s in samples} == {1, 2, 3, 4, 5}
        parts = {s.sample_id for s in samples if s.category == "bottle_cap"}
        assert parts == {
            *(f"bottle_cap_000{part}_OK" for part in range(3)),
            "bottle_cap_0003_NG_AK",
        }

    def test_a_view_of_a_defective_part_without_defect_is_normal(self, samples):
        views = [s for s in samples if "/NG/" in s.image.as_posix()]
        assert {(s.view, s.is_anomalous) for s in views} == {
            *((view, True) for view in (1, 2, 4, 5)),
            (3, False),
        }


class TestRealIADWithOneFolderOfSplits(TestRealIAD):
    @staticmethod
    def write(root: Path, rng: np.random.Generator) -> None:
        write_realiad(root, rng, jsons="realiad_jsons", images="realiad_1024")


class TestRealIADWithSplitsBesideTheCategories(TestRealIAD):
    @staticmethod
    def write(root: Path, rng: np.random.Generator) -> None:
        write_realiad(root, rng, jsons=".", images=".")


class TestFolder(LayoutContract):
    layout = "folder"
    write = staticmethod(write_folder)
    categories = ("bolt", "nut")
    counts = (12, 2, 5)
    missing_masks = 2
    incomplete = "No photographs in"


@pytest.mark.parametrize("name", ["mvtec", "visa", "mpdd"])
def test_the_published_counts_add_up(name):
    published = PUBLISHED[name]
    rows = [counts for counts in published.categories.values() if counts is not None]
    assert len(rows) == len(published.categories)
    for total, column in zip(published.total, zip(*rows, strict=True), strict=True):
        assert total == sum(column) or set(column) == {-1}


def test_a_folder_of_an_unknown_layout_is_rejected(tmp_path):
    (tmp_path / "photos" / "deep" / "down").mkdir(parents=True)
    with pytest.raises(InputError, match="found: photos"):
        detect(tmp_path)
