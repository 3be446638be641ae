"""The files of a cache: what a kill may leave in them, and in what order they are written."""

import os
from pathlib import Path

import pytest
import torch

from omiad.errors import MissingInputError
from omiad.features import FeatureExtractor
from omiad.features.identity import content_of, stamp_of
from omiad.features.store import FeatureStore, map_rows

NAMES = list("abcd")


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("test_efficientnet", weights="random", image_size=8, feature_size=1)


@pytest.fixture
def store(tmp_path, extractor):
    return FeatureStore.open(tmp_path / "cache", tmp_path, extractor)


@pytest.fixture
def features(store):
    return torch.arange(4 * store.row_bytes // 2).reshape(4, *store.shape).half()


def write(store: FeatureStore, features: torch.Tensor) -> None:
    contents = [f"content of {name}" for name in NAMES]
    with store.locked():
        store.append(NAMES, (features, ["stamp"] * 4, contents))


@pytest.mark.parametrize(("removed", "kept"), [(0, 4), (1, 3), (20, 3), (10**9, 0)])
@pytest.mark.parametrize("kind", ["rows", "index"])
def test_a_torn_tail_is_cut_and_the_next_rows_are_right(store, features, kind, removed, kept):
    write(store, features)
    torn = store.path.with_suffix(f".{kind}")
    os.truncate(torn, max(0, torn.stat().st_size - removed))
    store = FeatureStore(store.folder)
    assert list(store.entries) == NAMES[:kept]
    write(store, features)
    store = FeatureStore(store.folder)
    assert sorted(store.entries) == NAMES
    rows = map_rows(store.path, store.shape)
    for name, entry in store.entries.items():
        assert entry.content == f"content of {name}"
        assert torch.equal(rows[entry.row], features[NAMES.index(name)])
    assert store.path.stat().st_size % store.row_bytes == 0


def test_garbled_lines_and_files_of_an_unfinished_pruning_are_removed(store, features):
    write(store, features)
    index = store.path.with_suffix(".index")
    index.write_bytes(index.read_bytes().replace(b'["b"', b"\0\0\xff\xff", 1) + b"\0\0\0")
    for name in ("1.rows", "0.index.77.new"):
        (store.folder / name).write_bytes(b"x")
    with FeatureStore(store.folder).locked():
        pass
    assert list(FeatureStore(store.folder).entries) == ["a", "c", "d"]
    assert len(index.read_text().splitlines()) == 3
    assert {p.name for p in store.folder.iterdir()} == {"0.rows", "0.index", "record.json", "lock"}


def test_rows_are_on_the_disk_before_their_lines_are_written(store, features, monkeypatch):
    sizes, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        index = store.path.with_suffix(".index")
        sizes.append((store.path.stat().st_size, index.exists() and index.stat().st_size > 0))

    monkeypatch.setattr(os, "fsync", noted)
    write(store, features)
    assert sizes == [(4 * store.row_bytes, False), (4 * store.row_bytes, True)]


# Stamps.


@pytest.fixture
def image(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"one")
    monkeypatch.setattr("omiad.features.identity.time.time_ns", lambda: 2**62)
    return path


def test_a_stamp_changes_with_every_write_and_replacement(image, tmp_path):
    stat, before, content = image.stat(), stamp_of(image), content_of(image)
    assert stamp_of(image) == before != ""
    image.write_bytes(b"two")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    written = stamp_of(image)
    assert written != before
    assert content_of(image) != content
    (tmp_path / "other").write_bytes(b"two")
    os.utime(tmp_path / "other", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.replace(tmp_path / "other", image)
    assert stamp_of(image) != written


def test_without_a_change_time_or_within_two_seconds_of_it_a_file_has_no_stamp(image, monkeypatch):
    changed = image.stat().st_ctime_ns
    for age, has_stamp in ((2 * 10**9 - 1, False), (2 * 10**9, True)):
        monkeypatch.setattr("omiad.features.identity.time.time_ns", lambda age=age: changed + age)
        assert bool(stamp_of(image)) == has_stamp
    monkeypatch.setattr("omiad.features.identity._HAS_CHANGE_TIME", False)
    assert stamp_of(image) == ""


def test_a_file_that_is_gone_is_named(image):
    image.unlink()
    with pytest.raises(MissingInputError, match=r"image' is gone"):
        stamp_of(image)
