import json
import logging
import os
import pickle
import shutil
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError, MissingInputError
from omiad.features import Build, FeatureCache, FeatureExtractor, StreamedFeatures


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("test_efficientnet", weights="random", image_size=32, feature_size=4)


@pytest.fixture
def root(mvtec_root, tmp_path):
    return shutil.copytree(mvtec_root, tmp_path / "data")


@pytest.fixture
def build(root, extractor, tmp_path):
    def build(**kwargs) -> FeatureCache:
        samples = [s for s in index(kwargs.get("root", root)) if s.split == "train"]
        names = ("root", "cache_dir", "key", "budget")
        place = {"root": root, "cache_dir": tmp_path / "cache"}
        place |= {name: kwargs.pop(name) for name in names if name in kwargs}
        how = {"read": read_image, "batch_size": 3, "progress": False, **kwargs}
        return FeatureCache.open_or_build(samples, Build(extractor, **how), **place)

    return build


def refuse(path: Path, size: int) -> torch.Tensor:
    raise AssertionError(f"opened {path}")


def bytes_of(cache: FeatureCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.path.glob("*.rows")}


def images_of(root: Path) -> list[Path]:
    return [s.image for s in index(root) if s.split == "train"]


def test_rows_are_the_features_of_the_images_in_half_precision(build, root, extractor):
    cache = build()
    assert len(cache) == 8
    assert cache[0].dtype == torch.half
    for row, path in enumerate(images_of(root)):
        expected = extractor(read_image(path, 32)[None])[0]
        torch.testing.assert_close(cache[row].float(), expected, rtol=1e-3, atol=1e-4)


def test_items_are_views_of_the_mapped_file(build):
    cache = build()
    step = cache[0].numel() * 2
    assert cache[1].data_ptr() - cache[0].data_ptr() == step
    assert [len(content) for content in bytes_of(cache).values()] == [8 * step]


def test_writing_to_an_item_does_not_reach_the_file(build):
    cache = build()
    before = bytes_of(cache)
    cache[0].zero_()
    assert bytes_of(cache) == before


def test_a_pickled_cache_holds_no_features_and_maps_the_same_files(build):
    cache = build()
    assert cache[3].shape == cache[0].shape  # both mapped
    pickled = pickle.dumps(cache)
    assert len(pickled) < sum(map(len, bytes_of(cache).values()))
    assert torch.equal(pickle.loads(pickled)[3], cache[3])


def test_a_finished_cache_is_used_without_opening_an_image(build, root):
    cache = build()
    for path in images_of(root):
        stat = path.stat()
        path.write_bytes(bytes(stat.st_size))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = build(read=refuse)
    assert again.path == cache.path
    assert torch.equal(again[5], cache[5])


def test_the_data_set_may_move_and_the_cache_is_still_found(build, root, tmp_path):
    cache = build()
    moved = root.rename(tmp_path / "moved")
    again = build(root=moved, read=refuse)
    assert again.path == cache.path


def test_another_precision_other_weights_and_reading_rules_make_another_store(
    build, root, extractor, caplog, monkeypatch
):
    first = build()
    with caplog.at_level(logging.INFO, "omiad"):
        assert build(autocast_dtype=torch.bfloat16).path != first.path
        with other_weights(extractor):
            assert build().path != first.path
        monkeypatch.setattr("omiad.features.store.READING_RULES", 99)
        assert build().path != first.path
    assert "the nearest differs in autocast_dtype" in caplog.text
    assert "the nearest differs in weights" in caplog.text
    assert "the nearest differs in transform.reading_rules" in caplog.text


@contextmanager
def other_weights(extractor, fill=0.0):
    weight = extractor.backbone.conv_stem.weight
    kept = weight.clone()
    weight.data.fill_(fill)
    extractor._weights_hash = None
    try:
        yield
    finally:
        weight.data.copy_(kept)
        extractor._weights_hash = None


@pytest.mark.parametrize("key", ["stat", "content"])
def test_only_added_and_changed_images_are_computed(build, root, key):
    first = build(key=key)
    bottle, cable = images_of(root)[0], images_of(root)[5]
    shutil.copy(cable, bottle)  # changed
    Image.new("RGB", (32, 32), (9, 99, 0)).save(root / "cable/train/good/added.png")
    images_of(root)[1].unlink()
    reader = Counting(100)
    second = build(key=key, read=reader)
    added = root / "cable/train/good/added.png"
    # By content the copy is known already.
    assert reader.opened == ([bottle, added] if key == "stat" else [added])
    assert len(second) == 8
    assert torch.equal(second[0], second[4])
    assert torch.equal(second[2], first[3])
    again = build(key=key, read=refuse)
    assert all(torch.equal(again[i], second[i]) for i in range(8))


def test_by_content_a_touched_image_is_not_computed_again(build, root):
    build(key="content")
    os.utime(images_of(root)[0], ns=(0, 0))
    build(key="content", read=refuse)


@pytest.mark.parametrize(("seconds", "more"), [(1, b""), (0, b" ")])
def test_by_stat_another_time_or_another_size_is_a_change(build, root, seconds, more):
    build()
    image = images_of(root)[0]
    stat = image.stat()
    image.write_bytes(image.read_bytes() + more)
    os.utime(image, ns=(0, stat.st_mtime_ns + seconds * 10**9))
    reader = Counting(100)
    build(read=reader)
    assert reader.opened == [image]


def test_by_content_other_bytes_are_a_change_whatever_the_file_says_of_itself(build, root):
    build(key="content")
    image = images_of(root)[0]
    content, stat = image.read_bytes(), image.stat()
    image.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(image, ns=(0, stat.st_mtime_ns))
    with pytest.raises(AssertionError, match=f"opened {image}"):
        build(key="content", read=refuse)


def test_by_stat_images_of_one_size_and_time_are_told_apart(build, root):
    for path in images_of(root):
        path.write_bytes(path.read_bytes().ljust(10_000, b" "))
        os.utime(path, ns=(0, 0))
    reader = Counting(100)
    build(read=reader)
    assert reader.opened == images_of(root)


@pytest.mark.parametrize("part", [slice(None, None, -3), slice(None, None, 3)])
def test_a_part_of_the_images_is_a_cache_of_its_own(root, extractor, tmp_path, build, part):
    whole = build()
    samples = [s for s in index(root) if s.split == "train"]
    how, place = Build(extractor, refuse), {"root": root, "cache_dir": tmp_path / "cache"}
    for rows in (slice(3), part):  # as many, but others
        cache = FeatureCache.open_or_build(samples[rows], how, **place)
    expected = [whole[i] for i in range(8)[part]]
    assert all(torch.equal(cache[i], features) for i, features in enumerate(expected))
    mean = torch.stack(expected).double().mean((0, 2, 3))
    torch.testing.assert_close(cache.statistics.mean, mean)


def test_statistics_are_those_of_the_rows(build):
    cache = build()
    x = torch.stack([cache[i] for i in range(8)]).double()
    mean, std, rms = cache.statistics
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    expected = x.std((0, 2, 3), correction=0).clamp(min=1e-3 * rms)
    torch.testing.assert_close(std, expected)
    assert rms == pytest.approx(x.square().mean().sqrt().item())


def test_statistics_do_not_depend_on_the_size_of_the_chunks(build, monkeypatch, tmp_path):
    whole = build().statistics
    monkeypatch.setattr("omiad.features.cache._CHUNK_BYTES", 1)
    chunked = build(cache_dir=tmp_path / "other").statistics
    torch.testing.assert_close(chunked.mean, whole.mean)
    torch.testing.assert_close(chunked.std, whole.std)
    assert chunked.rms == pytest.approx(whole.rms)


def test_a_channel_that_never_varies_gets_the_least_standard_deviation(build, extractor):
    with other_weights(extractor):
        statistics = build().statistics
    assert (statistics.std > 0).all()
    assert statistics.std.min().item() >= 1e-3 * statistics.rms * (1 - 1e-12)


class Counting:
    """Reads images and stops, as by Ctrl-C, before one too many."""

    def __init__(self, limit: int) -> None:
        self.opened: list[Path] = []
        self.limit = limit

    def __call__(self, path: Path, size: int) -> torch.Tensor:
        if len(self.opened) == self.limit:
            raise KeyboardInterrupt
        self.opened.append(path)
        return read_image(path, size)


def test_an_interrupted_build_goes_on_where_it_stopped(build, root, tmp_path, caplog):
    whole = build(cache_dir=tmp_path / "other")
    with pytest.raises(KeyboardInterrupt):
        build(read=Counting(7))  # two batches of three are whole
    reader = Counting(100)
    with caplog.at_level(logging.INFO, "omiad"):
        cache = build(read=reader)
    assert "6 of 8 images are there" in caplog.text
    assert reader.opened == images_of(root)[6:]
    assert all(torch.equal(cache[i], whole[i]) for i in range(8))
    assert cache.statistics.rms == whole.statistics.rms
    assert torch.equal(cache.statistics.std, whole.statistics.std)


def test_shards_are_sealed_at_their_size(build, monkeypatch, tmp_path):
    whole = build(cache_dir=tmp_path / "other")
    monkeypatch.setattr("omiad.features.shards.SHARD_BYTES", 1)
    cache = build()
    assert sorted(p.name for p in cache.path.glob("0*")) == [
        *("00000.index", "00000.rows", "00001.index", "00001.rows", "00002.index", "00002.rows")
    ]
    assert all(torch.equal(cache[i], whole[i]) for i in range(8))


def test_unknown_statistics_are_measured_again_without_the_images(build):
    cache = build()
    shutil.rmtree(cache.path / "views")
    (cache.path / "views").mkdir()
    assert build(read=refuse).statistics.rms == cache.statistics.rms


def test_a_truncated_shard_gives_what_is_whole_and_the_rest_is_computed(build, root, caplog):
    cache = build()
    rows = [cache[i].clone() for i in range(8)]
    (shard,) = cache.path.glob("*.rows")
    os.truncate(shard, shard.stat().st_size * 5 // 8 - 1)
    reader = Counting(100)
    again = build(read=reader)
    assert reader.opened == images_of(root)[4:]
    assert "00000.rows' is truncated; 4 of its images have to be computed again" in caplog.text
    assert all(torch.equal(again[i], rows[i]) for i in range(8))
    shard.unlink()
    assert torch.equal(build()[2], rows[2])


def test_damaged_bytes_are_never_served(build):
    cache = build()
    (shard,) = cache.path.glob("*.rows")
    with shard.open("r+b") as file:
        file.seek(3 * cache[0].numel() * 2 + 10)
        file.write(b"damage")
    again = build(read=refuse)
    assert torch.equal(again[2], again[2])
    with pytest.raises(InputError, match=r"Row 3 of '.*00000.rows' is damaged.*omiad cache verify"):
        again[3]


def test_the_record_says_what_a_store_was_made_of(build, extractor):
    record = json.loads((build().path / "store.json").read_text())
    made_of = record["made_of"]
    assert made_of["extractor"] == extractor.config
    assert made_of["weights"] == extractor.weights_hash
    assert made_of["stored_dtype"] == "float16"
    assert set(made_of["versions"]) == {"torch", "timm", "pillow"}
    assert made_of["transform"]["mean"] == extractor.mean.flatten().tolist()
    assert record["shape"] == [extractor.num_channels, 4, 4]
    line = (build().path / "00000.index").read_text().splitlines()[0]
    assert json.loads(line)[3] == "bottle/train/good/000.png"


def test_workers_and_autocast_do_the_same_work(build, tmp_path):
    cache, other = build(), build(cache_dir=tmp_path / "other", num_workers=1)
    assert all(torch.equal(cache[i], other[i]) for i in range(8))
    low = build(autocast_dtype=torch.bfloat16)
    torch.testing.assert_close(low[0], cache[0], rtol=0.1, atol=0.1)


def test_building_leaves_the_global_random_state_alone(build):
    before = torch.get_rng_state()
    build()
    assert torch.equal(before, torch.get_rng_state())


def test_features_that_are_not_finite_name_their_image(build, extractor):
    bias = extractor.backbone.bn1.bias
    kept = bias.clone()
    bias.data.fill_(float("inf"))
    extractor._weights_hash = None
    try:
        with pytest.raises(InputError, match=r"features of '.*bottle/.*000.png' are not finite"):
            build()
    finally:
        bias.data.copy_(kept)
        extractor._weights_hash = None


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named_in_one_sentence(build, root, num_workers):
    images_of(root)[4].write_text("no image")
    with pytest.raises(InputError, match=r"^'.*cable/train/good/000.png' cannot be read.*it\.$"):
        build(num_workers=num_workers)


def test_an_image_that_is_gone_is_named(root, extractor, tmp_path):
    samples = index(root)
    samples[0].image.unlink()
    with pytest.raises(MissingInputError, match=r"image '.*000.png' is gone"):
        FeatureCache.open_or_build(
            samples, Build(extractor, read_image), root=root, cache_dir=tmp_path / "cache"
        )


def test_a_full_disk_is_noticed_before_anything_is_computed(build, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs .* MiB in '.*cache', but only 0.0 MiB are free"):
        build(read=refuse)


def test_a_second_build_waits_for_the_first(build, root, caplog):
    fcntl = pytest.importorskip("fcntl")
    first = build()
    with (first.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        os.utime(images_of(root)[0], ns=(0, 0))
        with caplog.at_level(logging.INFO, "omiad"):
            build()
        timer.join()
    assert "waiting for another process" in caplog.text


def test_features_that_are_there_are_read_whoever_holds_the_lock(build):
    fcntl = pytest.importorskip("fcntl")
    first = build()
    with (first.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert len(build(read=refuse)) == 8


def test_a_build_above_the_budget_is_refused_before_anything_is_computed(build):
    with pytest.raises(InputError, match=r"take .* and need .* more, above --data.cache_budget"):
        build(read=refuse, budget=1e-6)
    assert len(build(budget=1.0)) == 8
    assert len(build(read=refuse, budget=1e-6)) == 8  # nothing to add


def test_the_budget_counts_what_other_caches_take(build):
    needed = sum(map(len, bytes_of(build()).values()))
    with pytest.raises(InputError, match=r"above --data.cache_budget"):
        build(autocast_dtype=torch.bfloat16, read=refuse, budget=1.5 * needed / 2**30)


def test_16_bit_images_pass_through_the_cache(build, root):
    wide = np.full((32, 32), 40000, np.uint16)
    Image.fromarray(wide).save(images_of(root)[0])
    assert build()[0].isfinite().all()


def test_streamed_features_are_the_cached_ones(build, root, extractor, tmp_path):
    cache = build()
    samples = [s for s in index(root) if s.split == "train"]
    how = Build(extractor, read_image, batch_size=3, progress=False)
    place = {"root": root, "cache_dir": tmp_path / "other"}
    streamed = StreamedFeatures(samples, how, **place)
    assert len(streamed) == len(cache)
    assert all(torch.equal(streamed[i], cache[i]) for i in (5, 0, 5))
    torch.testing.assert_close(streamed.statistics, cache.statistics)
    assert not list(tmp_path.glob("other/*/*.rows"))
    counting = Counting(0)
    known = StreamedFeatures(samples, Build(extractor, counting, progress=False), **place)
    assert known.statistics.rms == streamed.statistics.rms


def test_few_streamed_features_are_kept(build, root, extractor, tmp_path, monkeypatch):
    monkeypatch.setattr("omiad.features.cache._NUM_RECENT", 2)
    samples = [s for s in index(root) if s.split == "train"]
    how = Build(extractor, read_image, batch_size=3, progress=False)
    streamed = StreamedFeatures(samples, how, root=root, cache_dir=tmp_path / "cache")
    first = [streamed[i].clone() for i in range(8)]
    assert len(streamed._recent) <= 2
    assert all(torch.equal(streamed[i], first[i]) for i in range(8))


def test_the_features_of_an_image_do_not_depend_on_its_company(root, extractor):
    images = torch.stack([read_image(path, 32) for path in images_of(root)])
    how = Build(extractor, read_image, batch_size=3)
    together = how.features(images)
    alone = torch.cat([how.features(image[None]) for image in images])
    assert torch.equal(together, alone)
    assert torch.equal(how.features(images[2:7]), together[2:7])


def test_an_error_of_the_system_that_is_no_full_disk_stays_what_it_is(build, monkeypatch):
    def append(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr("omiad.features.shards.ShardWriter.append", append)
    with pytest.raises(PermissionError, match="not yours"):
        build()
