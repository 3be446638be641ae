import logging
import os
import pickle
import shutil
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError, MissingInputError
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
        read=read_image, root=root, cache_dir=tmp_path / "cache", kind=FeatureCache, **kwargs
    ):
        samples = [s for s in index(root) if s.split == "train"][kwargs.pop("part", slice(None))]
        options = {"extractor": extractor, "batch_size": 3, **kwargs}
        how = Extraction(read=read, **options)
        make = FeatureCache.open_or_build if kind is FeatureCache else kind
        return make(samples, how, root=root, cache_dir=cache_dir)

    return build


def images_of(root: Path) -> list[Path]:
    return [s.image for s in index(root) if s.split == "train"]


def refuse(path: Path, size: int) -> torch.Tensor:
    raise AssertionError(f"opened {path}")


class Counting:
    """Reads images and stops, as by Ctrl-C, before one too many."""

    def __init__(self, limit: int = 100) -> None:
        self.opened: list[Path] = []
        self.limit = limit

    def __call__(self, path: Path, size: int) -> torch.Tensor:
        if len(self.opened) == self.limit:
            raise KeyboardInterrupt
        self.opened.append(path)
        return read_image(path, size)


def assert_equal(a, b) -> None:
    assert len(a) == len(b)
    assert all(torch.equal(a[i], b[i]) for i in range(len(a)))


def test_rows_are_the_features_of_the_images_in_half_precision(build, root, extractor):
    cache = build()
    assert len(cache) == 8
    assert cache[0].dtype == torch.half
    for row, path in enumerate(images_of(root)):
        expected = extractor(read_image(path, 32)[None])[0]
        torch.testing.assert_close(cache[row].float(), expected, rtol=1e-3, atol=1e-4)


def test_the_features_of_an_image_do_not_depend_on_the_rest_of_the_batch(root, extractor):
    images = torch.stack([read_image(path, 32) for path in images_of(root)])
    how = Extraction(extractor, read_image, batch_size=3)
    together = how.features(images)
    assert torch.equal(together, torch.cat([how.features(image[None]) for image in images]))
    assert torch.equal(how.features(images[2:7]), together[2:7])


def test_items_are_views_of_a_private_mapping_of_the_file(build):
    cache = build()
    assert cache[1].data_ptr() - cache[0].data_ptr() == 2 * cache[0].numel()
    before = cache.path.read_bytes()
    cache[0].zero_()
    assert cache.path.read_bytes() == before


def test_a_pickled_cache_holds_no_features_and_maps_the_same_file(build):
    cache = build()
    pickled = pickle.dumps(cache)
    assert len(pickled) < cache.path.stat().st_size
    assert_equal(pickle.loads(pickled), cache)


# What is computed, and when.


def test_a_finished_cache_is_used_without_opening_an_image(build, settled, monkeypatch):
    cache = build()
    monkeypatch.setattr("omiad.features.cache.content_of", refuse)
    assert_equal(build(refuse), cache)


def test_two_roots_with_equal_paths_sizes_and_times_keep_their_own_features(build, root, tmp_path):
    other = shutil.copytree(root, tmp_path / "other")
    for folder, colour in ((root, 10), (other, 200)):
        for path in images_of(folder):
            Image.new("RGB", (32, 32), (colour, 0, 0)).save(path, format="BMP")
            os.utime(path, ns=(0, 0))
    mine, theirs = build(root=root), build(root=other)
    assert not torch.equal(mine[0], theirs[0])
    assert_equal(build(refuse, root=root), mine)
    assert_equal(build(refuse, root=other), theirs)


def replace_in_place(path: Path) -> None:
    stat = path.stat()
    Image.new("RGB", (32, 32), (9, 99, 0)).save(path, format="BMP")
    path.write_bytes(path.read_bytes().ljust(stat.st_size, b"\0")[: stat.st_size])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


@pytest.mark.parametrize("wait", [True, False])
def test_an_image_replaced_with_equal_size_and_time_is_computed_again(
    build, root, request, monkeypatch, wait
):
    for path in images_of(root):
        Image.new("RGB", (32, 32)).save(path, format="BMP")
    if wait:  # otherwise the images are too young to trust their stamps
        monkeypatch.setattr("omiad.features.identity._COARSEST_TICK_NS", 0)
    build()
    replace_in_place(images_of(root)[2])
    reader = Counting()
    build(reader)
    assert reader.opened == [images_of(root)[2]]


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


def test_only_added_and_changed_images_are_computed(build, root):
    first = build()
    changed, removed, other = images_of(root)[0], images_of(root)[1], images_of(root)[5]
    added = root / "cable/train/good/added.png"
    shutil.copy(other, changed)
    removed.unlink()
    Image.new("RGB", (32, 32), (9, 99, 0)).save(added)
    reader = Counting()
    second = build(reader)
    assert reader.opened == [changed, added]
    assert torch.equal(second[0], second[4])
    assert torch.equal(second[2], first[3])
    assert_equal(build(refuse), second)


def test_an_interrupted_build_continues_where_it_stopped(build, root, tmp_path):
    whole = build(cache_dir=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        build(Counting(7))  # two batches of three are whole
    reader = Counting()
    cache = build(reader)
    assert reader.opened == images_of(root)[6:]
    assert_equal(cache, whole)
    assert torch.equal(cache.statistics.std, whole.statistics.std)


def test_everything_that_determines_features_makes_another_store(
    build, extractor, caplog, monkeypatch
):
    first = build()
    halved = FeatureExtractor.build_empty({**extractor.config, "precision": "bfloat16"})
    halved.load_state_dict(extractor.state_dict())
    with caplog.at_level(logging.INFO, "omiad"):
        low = build(extractor=halved)
        assert low.path != first.path
        torch.testing.assert_close(low[0], first[0], rtol=0.1, atol=0.1)
        with changed(extractor.backbone.conv_stem.weight, extractor):
            assert build().path != first.path
        monkeypatch.setattr("omiad.features.store.READING_RULES", 99)
        assert build().path != first.path
    for name in ("precision", "weights", "reading_rules"):
        assert f"the nearest differs in {name}" in caplog.text
    assert {store.made_of["precision"] for store in stores(first.path.parent.parent)} == {
        "float32",
        "bfloat16",
    }


@contextmanager
def changed(parameter, extractor, fill=0.0):
    kept = parameter.clone()
    parameter.data.fill_(fill)
    extractor._weights_hash = None
    try:
        yield
    finally:
        parameter.data.copy_(kept)
        extractor._weights_hash = None


# Statistics.


def test_statistics_are_those_of_the_rows_whatever_the_chunks(build, monkeypatch, tmp_path):
    cache = build()
    x = torch.stack([cache[i] for i in range(8)]).double()
    mean, std, rms = cache.statistics
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(std, x.std((0, 2, 3), correction=0).clamp(min=1e-3 * rms))
    assert rms == pytest.approx(x.square().mean().sqrt().item())
    monkeypatch.setattr("omiad.features.cache._CHUNK_BYTES", 1)
    torch.testing.assert_close(build(cache_dir=tmp_path / "other").statistics, cache.statistics)


@pytest.mark.parametrize("part", [slice(None, None, -3), slice(None, None, 3)])
def test_a_part_of_the_images_has_its_own_statistics(build, part):
    whole = build()
    build(refuse, part=slice(3))  # as many, but others
    cache = build(refuse, part=part)
    expected = [whole[i] for i in range(8)[part]]
    assert_equal(cache, expected)
    torch.testing.assert_close(
        cache.statistics.mean, torch.stack(expected).double().mean((0, 2, 3))
    )


def test_a_constant_channel_gets_the_least_standard_deviation(build, extractor):
    with changed(extractor.backbone.conv_stem.weight, extractor):
        statistics = build().statistics
    assert statistics.std.min().item() > 0
    assert statistics.std.min().item() >= 1e-3 * statistics.rms * (1 - 1e-12)


def test_streamed_features_and_statistics_are_the_cached_ones(build, root, tmp_path, settled):
    cache = build()
    options = {"kind": StreamedFeatures, "cache_dir": tmp_path / "other"}
    streamed = build(**options)
    assert_equal(streamed, cache)
    torch.testing.assert_close(streamed.statistics, cache.statistics)
    assert not list(tmp_path.glob("other/*/*.rows"))
    assert build(refuse, **options).statistics.rms == streamed.statistics.rms
    Image.new("RGB", (32, 32)).save(images_of(root)[0])
    assert build(**options).statistics.rms != streamed.statistics.rms


def test_few_streamed_features_are_kept(build, monkeypatch):
    monkeypatch.setattr("omiad.features.cache._NUM_RECENT", 2)
    streamed = build(kind=StreamedFeatures)
    first = [streamed[i].clone() for i in range(8)]
    assert len(streamed._recent) <= 2
    assert_equal(streamed, first)


# Faults.


def test_a_truncated_file_gives_its_whole_rows_and_the_rest_is_computed(build, root, caplog):
    cache = build()
    rows = [cache[i].clone() for i in range(8)]
    os.truncate(cache.path, cache.path.stat().st_size * 5 // 8 - 1)
    reader = Counting()
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
    with (
        changed(extractor.backbone.bn1.bias, extractor, float("inf")),
        pytest.raises(InputError, match=r"bottle/.*000.png' are not finite.*--trainer.precision"),
    ):
        build()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named_in_one_sentence(build, root, num_workers):
    images_of(root)[4].write_text("no image")
    with pytest.raises(InputError, match=r"^'.*cable/train/good/000.png' cannot be read.*it\.$"):
        build(num_workers=num_workers)


def test_a_worker_computes_the_same(build, tmp_path):
    assert_equal(build(cache_dir=tmp_path / "other", num_workers=1), build())


def test_an_image_that_is_gone_is_named(root, extractor, tmp_path):
    samples = index(root)
    samples[0].image.unlink()
    how = Extraction(extractor, read_image)
    with pytest.raises(MissingInputError, match=r"000\.png' is gone"):
        FeatureCache.open_or_build(samples, how, root=root, cache_dir=tmp_path / "cache")


def test_a_full_disk_is_noticed_before_anything_is_computed(build, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs .* MiB in '.*cache', but only 0.0 MiB are free"):
        build(refuse)


def test_a_disk_that_is_full_after_all_is_explained_and_nothing_is_lost(build, root, tmp_path):
    resource = pytest.importorskip("resource")
    whole = build(cache_dir=tmp_path / "other")
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
    reader = Counting()
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


def test_building_leaves_the_global_random_state_alone(build):
    before = torch.get_rng_state()
    build()
    assert torch.equal(before, torch.get_rng_state())
