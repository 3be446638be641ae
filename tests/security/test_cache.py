"""A feature cache is data that may be damaged: it serves right features, or computes them again."""

import errno
import json
import os
import random
import shutil
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from omiad.caching import cache_info, prune, prune_cache, verify, verify_cache
from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError
from omiad.features import Extraction, FeatureCache, FeatureExtractor, StreamedFeatures
from omiad.features.identity import stamp_of
from omiad.features.store import FeatureStore, stores

DAMAGE = [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"root": 1}', b"{}"]
HUGE = {
    "root": "x",
    "made_of": {"backbone": "x", "precision": "float32", "image_size": 8},
    "shape": [2**63, 2**63, 1],
}
DAMAGE.append(json.dumps(HUGE).encode())


@pytest.fixture(scope="module")
def extractor():
    return FeatureExtractor("test_efficientnet", weights="random", image_size=8, feature_size=1)


@pytest.fixture
def root(tmp_path):
    for i in range(4):
        path = tmp_path / f"data/nut/train/good/{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * i, 9, 9)).save(path)
    return tmp_path / "data"


@pytest.fixture
def build(root, extractor, tmp_path):
    def build(kind=FeatureCache, root=root):
        how = Extraction(extractor, read_image, batch_size=2)
        return kind(index(root), how, root=root, cache_dir=tmp_path / "cache")

    return build


@pytest.fixture
def folder(build, tmp_path):
    build()
    (store,) = stores(tmp_path / "cache")
    return store.folder


def rows(cache: FeatureCache) -> list[torch.Tensor]:
    return [row.clone() for row in cache]


def same(first: FeatureCache, second: FeatureCache) -> bool:
    same_rows = all(map(torch.equal, first, second))
    same_mean = torch.equal(first.statistics.mean, second.statistics.mean)
    return same_rows and same_mean and first.statistics.rms == second.statistics.rms


@pytest.mark.parametrize("content", [*DAMAGE, "shape"])
def test_a_damaged_record_blocks_no_other_cache_and_is_mended(
    build, folder, tmp_path, caplog, content
):
    before, whole = build(), (folder / "record.json").read_text()
    if content == "shape":
        content = json.dumps(json.loads(whole) | {"shape": [0, 1, 1]}).encode()
    (folder / "record.json").write_bytes(content)
    shutil.copytree(tmp_path / "data", tmp_path / "other")
    build(root=tmp_path / "other")
    cache_info(cache_dir=str(tmp_path / "cache"))
    verify_cache(cache_dir=str(tmp_path / "cache"))
    prune_cache(cache_dir=str(tmp_path / "cache"))
    assert str(folder / "record.json") in caplog.text
    assert same(build(), before)
    assert (folder / "record.json").read_text() == whole


@pytest.mark.parametrize("split", ["train", "streamed-train"])
@pytest.mark.parametrize("content", [*DAMAGE, "digit", "NaN", "short"])
def test_damaged_statistics_are_computed_again(build, folder, caplog, content, split):
    kind = FeatureCache if split == "train" else StreamedFeatures
    before, path = build(kind).statistics, folder / f"{split}.json"
    whole = json.loads(path.read_text())
    changes = {
        "digit": {"rms": whole["rms"] * 2},
        "NaN": {"rms": float("nan")},
        "short": {"mean": whole["mean"][1:]},
    }
    if content in changes:
        content = json.dumps(whole | changes[content]).encode()
    path.write_bytes(content)
    prune(FeatureStore(folder))
    assert len(FeatureStore(folder).entries) == 4
    after = build(kind).statistics
    assert torch.equal(before.mean, after.mean)
    assert before.rms == after.rms
    assert "is damaged; the statistics are computed again" in caplog.text


ENTRY = b'["nut/train/good/0.bmp", %s, %s, "", ""]'


@pytest.mark.parametrize(
    "line",
    [
        *(b"[]", b"{}", b"5", b'"abcde"', b"[1,2,3,4,5]", b'["a","b",1,"c","d"]', b"[" * 100_000),
        *(ENTRY % (b"-1", b"5"), ENTRY % (b"true", b"5"), ENTRY % (b"0", b"1e999")),
        ENTRY % (b"0", b"9" * 4000),
    ],
)
def test_damaged_lines_of_the_index_are_left_out(build, folder, line):
    before = build()
    with (folder / "0.index").open("ab") as file:
        file.write(line + b"\n")
    (folder / "notes.index").touch()
    assert same(build(), before)
    assert len(FeatureStore(folder).entries) == 4


def test_random_damage_is_mended_or_named(build, folder):
    before = rows(build())
    rng = random.Random(0)
    for _ in range(60):
        path = rng.choice(sorted(p for p in folder.iterdir() if p.name != "lock"))
        content = bytearray(path.read_bytes())
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            again = rows(build())
        except InputError as error:
            assert "omiad cache verify" in str(error)  # noqa: PT017
            verify(FeatureStore(folder))
            again = rows(build())
        assert all(map(torch.equal, again, before))


# Other processes.


def test_a_process_that_waits_for_a_cache_that_is_removed_makes_it_anew(build, folder, caplog):
    store, before = FeatureStore(folder), rows(build())
    waiting = FeatureStore(folder)
    done = threading.Event()

    def wait() -> None:
        with waiting.locked():
            done.set()

    with caplog.at_level("INFO", "omiad"), store.locked():
        thread = threading.Thread(target=wait)
        thread.start()
        while "waiting for another process" not in caplog.text:
            assert not done.wait(0.01)
        store.remove()
    thread.join()
    assert done.is_set()
    assert FeatureStore(folder).entries == {}
    assert all(map(torch.equal, build(), before))


def test_what_a_killed_pruning_left_is_no_cache_and_is_removed(build, folder, tmp_path):
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.copytree(folder, gone)
    assert [store.folder for store in stores(tmp_path / "cache")] == [folder]
    prune_cache(cache_dir=str(tmp_path / "cache"))
    assert not gone.exists()


def test_a_cache_that_is_pruned_while_a_run_opens_it_is_named(build, folder, monkeypatch):
    monkeypatch.setattr("omiad.features.cache.map_rows", lambda path, shape: path.stat() and 1 / 0)
    (folder / "0.rows").rename(folder / "gone")
    monkeypatch.setattr("omiad.features.store.FeatureStore.num_rows", 4)
    with pytest.raises(InputError, match="was pruned while this run opened it"):
        build()


# Other files of the same name, size and time.


def test_a_root_that_is_replaced_has_its_own_features(build, root, tmp_path, monkeypatch):
    monkeypatch.setattr("omiad.features.identity._COARSEST_TICK_NS", 0)
    other = Path(shutil.copytree(root, tmp_path / "other"))
    for i, path in enumerate(sorted(other.rglob("*.bmp"))):
        Image.new("RGB", (8, 8), (9, 60 * i, 9)).save(path)
    for path in (*root.rglob("*.bmp"), *other.rglob("*.bmp")):
        os.utime(path, ns=(0, 0))
    theirs, mine = build(root=other), build()
    root.rename(tmp_path / "first")
    other.rename(root)
    assert same(build(), theirs)
    root.rename(other)
    root.symlink_to(tmp_path / "first")  # under the same name again, by a link
    assert same(build(), mine)


def test_files_of_a_card_without_change_times_are_known_by_their_content(
    build, root, tmp_path, monkeypatch
):
    """Two FAT cards at one place: equal names, sizes, times and inode numbers."""
    monkeypatch.setattr("omiad.features.identity._COARSEST_TICK_NS", 0)
    stat = os.stat

    def of_card(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        if not str(path).endswith(".bmp"):
            return found
        fields = {"st_mtime_ns": 2 * 10**9, "st_ctime_ns": 2 * 10**9, "st_ino": 7}
        values = {name: getattr(found, name) for name in ("st_size", "st_mode")} | fields
        return type("Stat", (), values)()  # type: ignore[no-any-return]

    monkeypatch.setattr(os, "stat", of_card)
    assert stamp_of(next(root.rglob("*.bmp"))) == ""
    first, streamed = build(), build(StreamedFeatures).statistics
    for path in root.rglob("*.bmp"):
        Image.new("RGB", (8, 8), (9, 200, 9)).save(path)
    second = build()
    assert not same(first, second)
    assert build(StreamedFeatures).statistics.rms != streamed.rms


@pytest.mark.skipif(os.name == "nt", reason="file systems of Windows refuse such names")
def test_features_of_files_whose_names_are_not_utf_8_are_kept(build, root):
    source = root / "nut/train/good"
    shutil.copy(source / "1.bmp", source / os.fsdecode(b"\xff\x1b\n.bmp"))
    first = build()
    assert len(first) == 5
    assert same(build(), first)
    build(StreamedFeatures)


# Full disks.


@pytest.mark.parametrize("where", ["omiad.files._sync", "omiad.features.store._append"])
def test_a_full_disk_names_the_folder(build, root, tmp_path, monkeypatch, where):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(InputError, match=f"{tmp_path / 'cache'}"):
            build()
    assert len(build()) == 4


def test_a_full_disk_while_a_cache_is_pruned_loses_nothing(build, folder, root, monkeypatch):
    (root / "nut/train/good/3.bmp").unlink()
    before = rows(build())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("omiad.caching.os.fsync", full)
        with pytest.raises(InputError, match=r"1\.rows' is full"):
            prune(FeatureStore(folder))
    assert all(map(torch.equal, build(), before))
    assert prune(FeatureStore(folder)) > 0
