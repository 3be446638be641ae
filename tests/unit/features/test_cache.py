import json
import logging
import os
import pickle
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError, MissingInputError
from omiad.features import FeatureCache, FeatureExtractor


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("test_efficientnet", weights="random", image_size=32, feature_size=4)


@pytest.fixture
def root(mvtec_root, tmp_path):
    return shutil.copytree(mvtec_root, tmp_path / "data")


@pytest.fixture
def build(root, extractor, tmp_path):
    def build(**kwargs) -> FeatureCache:
        samples = [s for s in index(root) if s.split == "train"]
        defaults = {
            "root": root,
            "cache_dir": tmp_path / "cache",
            "read": read_image,
            "batch_size": 3,
            "progress": False,
        }
        return FeatureCache.open_or_build(samples, extractor, **{**defaults, **kwargs})

    return build


def refuse(path: Path, size: int) -> torch.Tensor:
    raise AssertionError(f"opened {path}")


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
    assert (cache.path / "features.bin").stat().st_size == 8 * step


def test_writing_to_an_item_does_not_reach_the_file(build):
    cache = build()
    before = (cache.path / "features.bin").read_bytes()
    cache[0].zero_()
    assert (cache.path / "features.bin").read_bytes() == before


def test_a_pickled_cache_is_a_path_and_maps_the_same_file(build):
    cache = build()
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000
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
    samples = [s for s in index(moved) if s.split == "train"]
    extractor = FeatureExtractor(
        "test_efficientnet", weights="random", image_size=32, feature_size=4
    )
    again = FeatureCache.open_or_build(
        samples, extractor, root=moved, cache_dir=tmp_path / "cache", read=refuse
    )
    assert again.path == cache.path


def test_a_changed_image_another_precision_and_other_weights_make_another_cache(build, root):
    first = build()
    assert build(autocast_dtype=torch.bfloat16).path != first.path
    os.utime(images_of(root)[0], ns=(0, 0))
    second = build()
    assert second.path != first.path
    images_of(root)[0].unlink()
    assert len(build()) == 7


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
    monkeypatch.setattr("omiad.features.building._CHUNK_BYTES", 1)
    chunked = build(cache_dir=tmp_path / "other").statistics
    torch.testing.assert_close(chunked.mean, whole.mean)
    torch.testing.assert_close(chunked.std, whole.std)
    assert chunked.rms == pytest.approx(whole.rms)


def test_a_channel_that_never_varies_gets_the_least_standard_deviation(build, extractor):
    weight = extractor.backbone.conv_stem.weight
    kept = weight.clone()
    weight.data.zero_()
    extractor._weights_hash = None
    try:
        statistics = build().statistics
    finally:
        weight.data.copy_(kept)
        extractor._weights_hash = None
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
    (part,) = (tmp_path / "cache").glob("*/features.bin.part")
    with part.open("ab") as file:
        file.write(b"half a row")
    reader = Counting(100)
    with caplog.at_level(logging.INFO, "omiad"):
        cache = build(read=reader)
    assert "6 images done by an earlier run" in caplog.text
    assert reader.opened == images_of(root)[6:]
    names = ["features.bin", "lock", "meta.json"]
    assert sorted(p.name for p in cache.path.iterdir()) == names
    assert all(torch.equal(cache[i], whole[i]) for i in range(8))
    torch.testing.assert_close(cache.statistics.std, whole.statistics.std)


def test_rows_without_statistics_are_not_computed_again(build):
    cache = build()
    (cache.path / "meta.json").unlink()
    again = build(read=refuse)
    assert again.statistics.rms == cache.statistics.rms


def test_a_damaged_cache_is_built_again_and_this_is_said(build, caplog):
    cache = build()
    row = cache[2].clone()
    (cache.path / "features.bin").write_bytes(b"short")
    again = build()
    assert "is damaged (5 bytes instead of" in caplog.text
    assert torch.equal(again[2], row)
    (cache.path / "features.bin").unlink()
    assert len(build()) == 8


def test_meta_data_say_what_the_cache_was_made_of(build, extractor):
    meta = json.loads((build().path / "meta.json").read_text())
    assert meta["config"] == extractor.config
    assert meta["extractor"] == extractor.fingerprint
    assert meta["shape"] == [8, extractor.num_channels, 4, 4]
    assert meta["files"][0][0] == "bottle/train/good/000.png"


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
    with pytest.raises(MissingInputError, match=r"training image '.*000.png' is gone"):
        FeatureCache.open_or_build(
            samples, extractor, root=root, cache_dir=tmp_path / "cache", read=read_image
        )


def test_a_full_disk_is_noticed_before_anything_is_computed(build, monkeypatch):
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"needs .* MiB in '.*cache', but only 0.0 MiB are free"):
        build(read=refuse)


def test_a_second_build_waits_for_the_first(build, caplog):
    fcntl = pytest.importorskip("fcntl")
    first = build()
    with (first.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        timer = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        timer.start()
        with caplog.at_level(logging.INFO, "omiad"):
            build(read=refuse)
        timer.join()
    assert "waiting for another process" in caplog.text


def test_16_bit_images_pass_through_the_cache(build, root):
    wide = np.full((32, 32), 40000, np.uint16)
    Image.fromarray(wide).save(images_of(root)[0])
    assert build()[0].isfinite().all()
