"""Whenever a build is killed: nothing that was computed is lost, and nothing wrong is served."""

import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_mvtec

from omiad.data.images import read_image
from omiad.features import FeatureCache
from omiad.features.store import crc_of, map_rows, stores

if sys.platform == "win32":
    pytest.skip("needs SIGKILL", allow_module_level=True)

from store_build import BATCH_SIZE, build, logged_read, start

NUM_IMAGES = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faults") / "data"
    write_mvtec(root, np.random.default_rng(0), num_train=NUM_IMAGES // 2)
    return root


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """What an undisturbed build gives."""
    return build(root, tmp_path_factory.mktemp("reference"), read_image)


def opened(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def assert_sound(cache_dir: Path, reference: FeatureCache) -> int:
    """Check every row that a reader could be served now; return how many there are."""
    (right,) = stores(reference.path.parent.parent)
    expected, found = map_rows(right.path, right.shape), stores(cache_dir)
    for store in found:
        for image, entry in store.entries.items():
            row = map_rows(store.path, store.shape)[entry.row]
            assert torch.equal(row, expected[right.entries[image].row])
            assert crc_of(row) == entry.crc
    return sum(len(store.entries) for store in found)


def assert_finished(cache_dir: Path, root: Path, reference: FeatureCache, log: Path) -> None:
    """Check that a build goes on to what an undisturbed one gives, and leaves no litter."""
    cache = build(root, cache_dir, partial(logged_read, log))
    assert all(torch.equal(cache[i], reference[i]) for i in range(NUM_IMAGES))
    torch.testing.assert_close(cache.statistics, reference.statistics, rtol=0, atol=0)
    names = {path.name for path in cache.path.parent.iterdir() if ".json" not in path.suffixes}
    assert names == {"0.rows", "0.index", "lock"}
    assert opened(log) <= NUM_IMAGES + BATCH_SIZE


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_build_survives_a_kill_between_any_two_changes_of_a_file(root, reference, tmp_path, step):
    for die_at in range(0, 10_000, step):
        cache_dir, log = tmp_path / f"at{die_at}", tmp_path / f"at{die_at}.log"
        process = start(root, cache_dir, log, die_at)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        assert_sound(cache_dir, reference)
        assert_finished(cache_dir, root, reference, log)
    assert 30 <= die_at < 9_000


def test_processes_that_build_at_once_share_the_work(root, reference, tmp_path):
    cache_dir, log = tmp_path / "cache", tmp_path / "log"
    processes = [start(root, cache_dir, log) for _ in range(3)]
    seen = 0
    while any(process.is_alive() for process in processes):
        seen = max(seen, assert_sound(cache_dir, reference))
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert seen > 0
    assert opened(log) == NUM_IMAGES
    assert_finished(cache_dir, root, reference, log)


def test_a_process_that_waits_goes_on_when_the_builder_is_killed(root, reference, tmp_path):
    cache_dir, log = tmp_path / "cache", tmp_path / "log"
    first = start(root, cache_dir, log)
    while opened(log) < 7:
        assert first.is_alive()
        time.sleep(0.001)
    second = start(root, cache_dir, log)
    first.kill()
    second.join()
    assert second.exitcode == 0
    assert_finished(cache_dir, root, reference, log)
