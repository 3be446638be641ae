import logging
import os
import pickle
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError
from omiad.features import Extraction, FeatureCache, FeatureExtractor, StreamedFeatures
from omiad.features.store import stores


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("test_efficientnet", weights="random", image_size=32, feature_size=4)


@pytest.fixture
def root(mvtec_root, tmp_path):
    return shutil.copytree(mvtec_root, tmp_path / "data")


@pytest.fixture
def settled(monkeypatch):
    """Count files as settled at once, so that their stamps are trusted."""
    monkeypatch.setattr("omiad.features.identity._COARSEST_TICK_NS", 0)


@pytest.fixture
def build(root, extractor, tmp_path):
    def build(
        read=read_image, root=root, cache="cache", kind=FeatureCache, part=slice(None), **kwargs
    ):
        samples = [s for s in index(root) if s.split == "train"][part]
        how = Extraction(**{"extractor": extractor, "read": read, "batch_size": 3, **kwargs})
        return kind(samples, how, root=root, cache_dir=tmp_path / cache)

    return build


def images_of(root: Path) -> list[Path]:
    return [s.image for s in index(root) if s.split == "train"]


def refuse(path: Path, size: int = 0) -> torch.Tensor:
    raise AssertionError(f"opened {path}")


class Noting:
    """Reads images and notes them."""

    def __init__(self) -> None:
        self.opened: list[Path] = []

    def __call__(self, path: Path, size: int) -> torch.Tensor:
        self.opened.append(path)
        return read_image(path, size)


def assert_equal(a, b) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(a[i], b[i]) for i in range(len(a)))


@contextmanager
def filled(parameter, value=0.0):
    kept = parameter.clone()
    parameter.fill_(value)
    try:
        yield
    finally:
        parameter.copy_(kept)


def test_rows_are_the_features_of_the_images_in_half_precision(build, root, extractor):
    cache = build()
    assert (len(cache), cache[0].dtype) == (8, torch.half)
    for row, path in enumerate(images_of(root)):
        expected = extractor(read_image(path, 32)[None])[0]
        torch.testing.assert_close(cache[row].float(), expected, rtol=1e-3, atol=1e-4)


def test_the_features_of_an_image_do_not_depend_on_the_rest_of_the_batch(root, extractor):
    images = torch.stack([read_image(path, 32) for path in images_of(root)])
    together = extractor.features(images)
    alone = torch.cat([extractor.features(image[None]) for image in images])
    assert torch.equal(together, alone)
    assert torch.equal(extractor.features(images[2:7]), together[2:7])


def test_items_are_views_of_a_private_mapping_of_the_file(build):
    cache = build()
    assert cache[1].data_ptr() - cache[0].data_ptr() == 2 * cache[0].numel()
    before = cache.path.read_bytes()
    pickled = pickle.dumps(cache)
    assert len(pickled) < len(before)
    assert_equal(pickle.loads(pickled), cache)
    cache[0].zero_()
    assert cache.path.read_bytes() == before


# What is computed, and when.


def test_a_touched_or_copied_image_is_compared_once_and_not_computed(
    build, root, settled, monkeypatch
):
    cache = build()
    touched, copied = images_of(root)[:2]
    os.utime(touched, ns=(0, 0))
    shutil.copy(copied, root / "copy")
    os.replace(root / "copy", copied)
    assert_equal(build(refuse), cache)
    monkeypatch.setattr("omiad.features.cache.content_of", refuse)
    assert_equal(build(refuse), cache)


def test_two_roots_with_equal_paths_sizes_and_times_keep_their_own_features(build, root, tmp_path):
    other = shutil.copytree(root, tmp_path / "other")
    for folder, colour in ((root, 10), (other, 200)):
        for path in images_of(folder):
            Image.new("RGB", (32, 32), (colour, 0, 0)).save(path, format="BMP")
            os.utime(path, ns=(0, 0))
    mine, theirs = build(), build(root=other)
    assert not torch.equal(mine[0], theirs[0])
    assert_equal(build(refuse), mine)
    assert_equal(build(refuse, root=other), theirs)


def test_only_added_and_changed_images_are_computed(build, root):
    first = build()
    changed, removed, other = images_of(root)[0], images_of(root)[1], images_of(root)[5]
    added = root / "cable/train/good/added.png"
    shutil.copy(other, changed)
    removed.unlink()
    Image.new("RGB", (32, 32), (9, 99, 0)).save(added)
    reader = Noting()
    second = build(reader)
    assert reader.opened == [changed, added]
    assert torch.equal(second[0], second[4])
    assert torch.equal(second[2], first[3])
    assert_equal(build(refuse), second)


def test_everything_that_determines_features_makes_another_store(
    build, extractor, caplog, monkeypatch
):
    first = build()
    halved = FeatureExtractor(**{**extractor.config, "precision": "bfloat16"}, weights="random")
    halved.load_state_dict(extractor.state_dict())
    with caplog.at_level(logging.INFO, "omiad"):
        others = [build(extractor=halved)]
        torch.testing.assert_close(others[0][0], first[0], rtol=0.1, atol=0.1)
        with filled(extractor.backbone.conv_stem.weight):
            others.append(build())
        monkeypatch.setattr("omiad.features.store.READING_RULES", 99)
        others.append(build())
    assert len({cache.path for cache in (first, *others)}) == 4
    for name in ("precision", "weights", "reading_rules"):
        assert f"the nearest differs in {name}" in caplog.text


# Statistics.


def test_statistics_are_those_of_the_rows_whatever_the_chunks(build, monkeypatch):
    cache = build()
    x = torch.stack(list(cache)).double()
    mean, std, rms = cache.statistics
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(std, x.std((0, 2, 3), correction=0).clamp(min=1e-3 * rms))
    assert rms == pytest.approx(x.square().mean().sqrt().item())
    monkeypatch.setattr("omiad.features.cache._CHUNK_BYTES", 1)
    torch.testing.assert_close(build(cache="other").statistics, cache.statistics)


@pytest.mark.parametrize("part", [slice(None, None, -3), slice(None, None, 3)])
def test_a_part_of_the_images_has_its_own_statistics(build, part):
    whole = build()
    build(refuse, part=slice(3))  # as many, but others
    cache = build(refuse, part=part)
    expected = [whole[i] for i in range(8)[part]]
    assert_equal(cache, expected)
    mean = torch.stack(expected).double().mean((0, 2, 3))
    torch.testing.assert_close(cache.statistics.mean, mean)


def test_streamed_features_and_statistics_are_the_cached_ones(build, root, tmp_path, settled):
    cache = build()
    options = {"kind": StreamedFeatures, "cache": "other"}
    streamed = build(**options)
    assert_equal(streamed, cache)
    torch.testing.assert_close(streamed.statistics, cache.statistics)
    assert not list(tmp_path.glob("other/*/*.rows"))
    assert build(refuse, **options).statistics.rms == streamed.statistics.rms
    Image.new("RGB", (32, 32)).save(images_of(root)[0])
    assert build(**options).statistics.rms != streamed.statistics.rms


def test_streamed_features_of_few_images_are_kept(build, root, monkeypatch):
    monkeypatch.setattr("omiad.features.cache._NUM_RECENT", 2)
    reader = Noting()
    streamed = build(reader, kind=StreamedFeatures)
    reader.opened.clear()
    for i in (0, 1, 0, 1, 2, 3, 0):
        assert torch.equal(streamed[i], build()[i])
    assert reader.opened == [images_of(root)[i] for i in (0, 1, 2, 3, 0)]


# Faults.


def test_a_truncated_file_gives_its_whole_rows_and_the_rest_is_computed(build, root, caplog):
    cache = build()
    rows = [row.clone() for row in cache]
    os.truncate(cache.path, cache.path.stat().st_size * 5 // 8 - 1)
    reader = Noting()
    assert_equal(build(reader), rows)
    assert reader.opened == images_of(root)[4:]
    assert "is truncated; 4 images are computed again" in caplog.text
    cache.path.unlink()
    assert_equal(build(), rows)


def test_damaged_bytes_are_never_served(build):
    cache = build()
    with cache.path.open("r+b") as file:
        file.seek(3 * cache[0].numel() * 2 + 10)
        file.write(b"damage")
    again = build(refuse)
    assert torch.equal(again[2], cache[2])
    with pytest.raises(InputError, match=r"Row 3 of '.*0\.rows' is damaged.*omiad cache verify"):
        again[3]


def test_features_that_are_not_finite_name_their_image(build, extractor):
    named = pytest.raises(InputError, match=r"bottle/.*000.png' are not finite.*precision")
    with filled(extractor.backbone.bn1.bias, float("inf")), named:
        build()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named_in_one_sentence(build, root, num_workers):
    images_of(root)[4].write_text("no image")
    with pytest.raises(InputError, match=r"^'.*cable/train/good/000.png' cannot be read.*it\.$"):
        build(num_workers=num_workers)


def test_a_worker_computes_the_same_and_leaves_the_global_random_state_alone(build):
    before = torch.get_rng_state()
    assert_equal(build(cache="other", num_workers=1), build())
    assert torch.equal(before, torch.get_rng_state())


def test_a_disk_that_is_full_after_all_is_explained_and_nothing_is_lost(build, root, tmp_path):
    resource = pytest.importorskip("resource")
    whole = build(cache="other")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        size = 5 * whole[0].numel() * 2  # a batch of three and a part of the next
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        with pytest.raises(InputError, match=r"The disk is full at .* 3 of 8 images are kept"):
            build()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (store,) = stores(tmp_path / "cache")
    assert store.num_rows == 3
    reader = Noting()
    assert_equal(build(reader), whole)
    assert reader.opened == images_of(root)[3:]


def test_another_error_of_the_system_stays_what_it_is(build, monkeypatch):
    def append(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("omiad.features.store.FeatureStore.append", append)
    with pytest.raises(PermissionError, match="not yours"):
        build()


def test_a_second_build_waits_for_the_first(build, root, caplog):
    fcntl = pytest.importorskip("fcntl")
    first = build()
    with (first.path.parent / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert_equal(build(refuse), first)  # features that are there are read at once
        timer = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        Image.new("RGB", (32, 32)).save(images_of(root)[0])
        with caplog.at_level(logging.INFO, "omiad"):
            build()
        timer.join()
    assert "waiting for another process" in caplog.text
