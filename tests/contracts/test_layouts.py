"""What every layout promises, tested on trees with the quirks of the real data sets."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

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


def write_synthetic(root: Path, _: np.random.Generator) -> None:
    few = {"num_train": 2, "num_test_good": 1, "num_test_defective": 2, "image_size": 32}
    synthesize(root, categories=("board", "gear"), **few)


class Case(NamedTuple):
    """A layout and the tree that is written in it."""

    layout: str
    write: Callable[[Path, np.random.Generator], None]
    categories: tuple[str, ...]
    counts: tuple[int, int, int]
    """Training, normal test and defective test images."""
    dataset: str = "data"
    detected: str = ""
    """The layout that "auto" detects, if it is another name for the same index."""
    incomplete: str = "No category in"
    """Pattern of the error for an empty root."""
    missing_masks: int = 0
    defects_are_dark: bool = True


VISA = Case("visa", write_visa, ("candle", "pcb1"), (8, 6, 6), "visa")
REALIAD = Case(
    "realiad",
    write_realiad,
    ("audiojack", "bottle_cap"),
    (20, 12, 8),
    "realiad",
    incomplete="No splits of Real-IAD .*realiad_jsons.zip",
)
CASES = {
    "mvtec": Case("mvtec", write_mvtec, ("bottle", "cable"), (8, 6, 6)),
    "mpdd": Case(
        "mpdd", write_mpdd, ("connector", "metal_plate", "tubes"), (12, 9, 9), "mpdd", "mvtec"
    ),
    "synthetic": Case(
        "synthetic",
        write_synthetic,
        ("board", "gear"),
        (4, 2, 4),
        detected="mvtec",
        incomplete="omiad data synthesize",
        defects_are_dark=False,
    ),
    "visa": VISA,
    "visa by spot-diff": VISA._replace(write=write_visa_prepared),
    "visa by anomalib": VISA._replace(write=partial(write_visa_prepared, folder="visa_pytorch")),
    "realiad": REALIAD,
    "realiad with one folder of splits": REALIAD._replace(
        write=partial(write_realiad, jsons="realiad_jsons", images="realiad_1024")
    ),
    "realiad with splits next to the categories": REALIAD._replace(
        write=partial(write_realiad, jsons=".", images=".")
    ),
    "folder": Case(
        "folder",
        write_folder,
        ("bolt", "nut"),
        (12, 2, 5),
        incomplete="No photographs in",
        missing_masks=2,
    ),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    case: Case = request.param
    return case


@pytest.fixture(scope="module")
def root(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(case.layout) / "data"
    case.write(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="module")
def samples(case: Case, root: Path) -> list[Sample]:
    return INDEXES[case.layout](root)


def test_the_layout_is_detected_from_the_folders(case, root, samples):
    assert index_dataset(root) == (case.detected or case.layout, case.dataset, samples)


def test_every_image_is_listed_once_in_its_split(case, samples):
    train = [s for s in samples if s.split == "train"]
    bad = [s for s in samples if s.is_anomalous]
    assert (len(train), len(samples) - len(train) - len(bad), len(bad)) == case.counts
    assert not any(s.is_anomalous for s in train)
    assert len({s.image for s in samples}) == len(samples)
    assert all(s.image.is_file() for s in samples)


def test_categories_are_sorted_and_training_images_come_first(case, samples):
    keys = [(s.category, s.split == "test") for s in samples]
    assert keys == sorted(keys)
    assert tuple(sorted({s.category for s in samples})) == case.categories


def test_masks_belong_to_defects_and_match_their_images(case, samples):
    masks = [(s, s.mask) for s in samples if s.mask is not None]
    assert all(s.is_anomalous for s, _ in masks)
    assert len(masks) == case.counts[2] - case.missing_masks
    for sample, path in masks:
        mask = read_mask(path, 32, image=sample.image).numpy()
        assert mask.any()
        if case.defects_are_dark:  # .jpg is not exactly black
            assert read_image(sample.image, 32).numpy().max(0)[mask].mean() < 40


def test_the_index_opens_no_image(case, root, samples, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr(Image, "open", refuse)
    assert INDEXES[case.layout](root) == samples


def test_a_missing_or_empty_root_is_rejected(case, tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        INDEXES[case.layout](tmp_path / "nowhere")
    with pytest.raises(InputError, match=case.incomplete):
        INDEXES[case.layout](tmp_path)


def test_parts_and_views_of_real_iad_come_from_the_file_names(tmp_path):
    write_realiad(tmp_path, np.random.default_rng(0))
    samples = [s for s in index_dataset(tmp_path).samples if s.category == "bottle_cap"]
    good = {f"bottle_cap_000{part}_OK" for part in range(3)}
    assert {s.sample_id for s in samples} == {*good, "bottle_cap_0003_NG_AK"}
    # One view of the defective part shows no defect.
    views = [(s.view, s.is_anomalous) for s in samples if s.sample_id not in good]
    assert views == [(1, True), (2, True), (3, False), (4, True), (5, True)]


@pytest.mark.parametrize("name", ["mvtec", "visa", "mpdd"])
def test_the_published_counts_add_up(name):
    published = PUBLISHED[name]
    columns = zip(*(counts for counts in published.categories.values() if counts), strict=True)
    for total, column in zip(published.total, columns, strict=True):
        assert len(column) == len(published.categories)
        assert total == sum(column) or set(column) == {-1}


def test_a_folder_of_an_unknown_layout_is_rejected(tmp_path):
    (tmp_path / "photos" / "deep" / "down").mkdir(parents=True)
    with pytest.raises(InputError, match="found: photos"):
        detect(tmp_path)
