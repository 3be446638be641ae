"""Whatever happens to a build: nothing that was computed is lost, nothing wrong is served."""

import random
import signal
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_mvtec

from omiad.data.images import read_image
from omiad.features import FeatureCache
from omiad.features.shards import map_rows
from omiad.features.store import stores

if sys.platform == "win32":
    pytest.skip("needs SIGKILL", allow_module_level=True)

from store_build import BATCH_SIZE, LoggedReader, build, start

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


def assert_sound(cache_dir: Path, reference: FeatureCache) -> int:
    """Check every row that a reader could be served now; return how many there are."""
    (right,) = stores(reference.path.parent)
    by_key = right.index()
    found = 0
    for store in stores(cache_dir):
        for key, place in store.index().items():
            row = map_rows(store.folder / f"{place.shard}.rows", store.shape)[place.position]
            there = by_key[key]
            expected = map_rows(right.folder / f"{there.shard}.rows", right.shape)[there.position]
            assert torch.equal(row, expected)
            assert zlib.crc32(row.numpy().tobytes()) == place.crc
            found += 1
    return found


def assert_finished(cache_dir: Path, root: Path, reference: FeatureCache, log: Path) -> None:
    """Check that a build goes on, gives what an undisturbed one gives, and leaves no litter."""
    cache = build(root, cache_dir, LoggedReader(log))
    assert len(cache) == NUM_IMAGES
    assert all(torch.equal(cache[i], reference[i]) for i in range(NUM_IMAGES))
    assert cache.statistics.rms == reference.statistics.rms
    assert torch.equal(cache.statistics.std, reference.statistics.std)
    names = {path.suffix for path in cache.path.iterdir()}
    assert names == {".rows", ".index", ".json", ""}  # "": lock and views


def opened(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def kill_at_random(root: Path, reference: FeatureCache, folder: Path, kills: int) -> None:
    rng = random.Random(0)
    for name in ("first", "calm"):  # the first waits for the server of processes
        began = time.monotonic()
        start(root, folder / name, folder / f"{name}.log").join()
    duration = time.monotonic() - began
    done = rounds = 0
    while done < kills:
        cache_dir, log, kills_here, before = folder / f"{rounds}", folder / f"{rounds}.log", 0, 0
        while done < kills:
            process = start(root, cache_dir, log)
            process.join(rng.uniform(0.2, 1.0) * duration)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            done, kills_here = done + 1, kills_here + 1
            now = assert_sound(cache_dir, reference)
            assert now >= before  # what was sealed stays
            before = now
        assert_finished(cache_dir, root, reference, log)
        # Only what was being computed at the moment of a kill is computed again.
        assert NUM_IMAGES <= opened(log) <= NUM_IMAGES + BATCH_SIZE * kills_here
        rounds += 1


def test_a_build_survives_kills_at_random_moments(root, reference, tmp_path):
    kill_at_random(root, reference, tmp_path, 6)


@pytest.mark.slow
def test_a_build_survives_many_kills_at_random_moments(root, reference, tmp_path):
    kill_at_random(root, reference, tmp_path, 100)


def kill_at_every(root: Path, reference: FeatureCache, folder: Path, step: int) -> int:
    """Kill a build in front of every `step`-th change of a file; return how often."""
    for kills, die_at in enumerate(range(0, 10_000, step)):
        cache_dir, log = folder / f"at{die_at}", folder / f"at{die_at}.log"
        process = start(root, cache_dir, log, die_at)
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL
        assert_sound(cache_dir, reference)
        assert_finished(cache_dir, root, reference, log)
        assert opened(log) <= NUM_IMAGES + BATCH_SIZE
    raise AssertionError("a build never ended")


def test_a_build_survives_a_kill_between_two_changes_of_a_file(root, reference, tmp_path):
    assert kill_at_every(root, reference, tmp_path, step=11) >= 4


@pytest.mark.slow
def test_a_build_survives_a_kill_between_any_two_changes_of_a_file(root, reference, tmp_path):
    assert kill_at_every(root, reference, tmp_path, step=1) >= 40


def test_processes_that_build_at_once_share_the_work(root, reference, tmp_path):
    cache_dir, log = tmp_path / "cache", tmp_path / "log"
    processes = [start(root, cache_dir, log) for _ in range(3)]
    seen = 0
    while any(process.is_alive() for process in processes):
        seen = max(seen, assert_sound(cache_dir, reference))
    for process in processes:
        process.join()
        assert process.exitcode == 0
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
    first.join()
    second.join()
    assert second.exitcode == 0
    assert opened(log) <= NUM_IMAGES + BATCH_SIZE
    assert_finished(cache_dir, root, reference, log)
