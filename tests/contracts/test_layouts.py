"""What every layout promises, tested on trees with the quirks of the real data sets."""

from collections import Counter
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

from omiad.data.images import read_image
from omiad.data.layouts import INDEXES, index_dataset
from omiad.data.layouts.published import PUBLISHED
from omiad.data.layouts.synthetic import synthesize
from omiad.data.masks import read_mask
from omiad.errors import InputError, MissingInputError

KINDS = (("train", False), ("test", False), ("test", True))


def write_synthetic(root: Path, _: np.random.Generator) -> None:
    few = {"num_train": 2, "num_test_good": 1, "num_test_defective": 2, "image_size": 32}
    synthesize(root, categories=("board", "gear"), **few)


class Case(NamedTuple):
    """A layout and the tree that is written in it."""

    layout: str
    write: Callable[[Path, np.random.Generator], None]
    categories: tuple[str, ...]
    counts: tuple[int, int, int]  # training, normal test and defective test images
    dataset: str = "data"
    detected: str = ""  # by "auto", if it is another name for the same index
    incomplete: str = "No category in"  # pattern of the error for an empty root
    missing_masks: int = 0
    defects_are_dark: bool = True


VISA = Case("visa", write_visa, ("candle", "pcb1"), (8, 6, 6), "visa")
REALIAD = Case("realiad", write_realiad, ("audiojack", "bottle_cap"), (20, 12, 8), "realiad")
REALIAD = REALIAD._replace(incomplete="No splits of Real-IAD .*realiad_jsons.zip")
MPDD = ("connector", "metal_plate", "tubes")
SYNTHETIC = Case("synthetic", write_synthetic, ("board", "gear"), (4, 2, 4), detected="mvtec")
FOLDER = Case("folder", write_folder, ("bolt", "nut"), (12, 2, 5), incomplete="No photographs in")
CASES = {
    "mvtec": Case("mvtec", write_mvtec, ("bottle", "cable"), (8, 6, 6)),
    "mpdd": Case("mpdd", write_mpdd, MPDD, (12, 9, 9), "mpdd", "mvtec"),
    "synthetic": SYNTHETIC._replace(incomplete="omiad data synthesize", defects_are_dark=False),
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
    "folder": FOLDER._replace(missing_masks=2),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=list(CASES))
def case(request):
    return request.param


@pytest.fixture(scope="module")
def root(case, tmp_path_factory):
    root = tmp_path_factory.mktemp(case.layout) / "data"
    case.write(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="module")
def samples(case, root):
    return INDEXES[case.layout](root)


def test_the_layout_is_detected_from_the_folders(case, root, samples):
    assert index_dataset(root) == (case.detected or case.layout, case.dataset, samples)


def test_every_image_is_listed_once_in_its_split(case, samples):
    kinds = Counter((s.split, s.is_anomalous) for s in samples)
    assert tuple(kinds[kind] for kind in KINDS) == case.counts
    assert sum(case.counts) == len(samples) == len({s.image for s in samples})
    assert all(s.image.is_file() for s in samples)


def test_categories_are_sorted_and_training_images_come_first(case, samples):
    keys = [(s.category, s.split == "test") for s in samples]
    assert keys == sorted(keys)
    assert tuple(sorted({s.category for s in samples})) == case.categories


def test_masks_belong_to_defects_and_match_their_images(case, samples):
    masks = [(s, mask) for s in samples for mask in s.masks]
    assert all(s.is_anomalous for s, _ in masks)
    assert len(masks) == case.counts[2] - case.missing_masks
    for sample, path in masks:
        mask = read_mask([path], 32, image=sample.image).numpy()
        assert mask.any()
        if case.defects_are_dark:  # .jpg is not exactly black
            assert read_image(sample.image, 32).numpy().max(0)[mask].mean() < 40


def test_the_index_opens_no_image(case, root, samples, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    assert INDEXES[case.layout](root) == samples


def test_a_missing_or_empty_root_is_rejected(case, tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        index_dataset(tmp_path / "nowhere", case.layout)
    with pytest.raises(InputError, match=case.incomplete):
        index_dataset(tmp_path, case.layout)


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
    columns = zip(*published.categories.values(), strict=True)
    for total, column in zip(published.total, columns, strict=True):
        assert total == sum(column) or set(column) == {-1}


def test_a_folder_of_an_unknown_layout_is_rejected(tmp_path):
    (tmp_path / "photos" / "deep" / "down").mkdir(parents=True)
    with pytest.raises(InputError, match="found: photos"):
        index_dataset(tmp_path)
