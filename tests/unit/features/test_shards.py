import json
import os

import pytest
import torch

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.errors import InputError
from omiad.features import Build, FeatureCache, FeatureExtractor
from omiad.features.shards import Row, ShardWriter, map_rows, read_index, recover, write_index

SHAPE = (3, 2, 2)
ROW_BYTES = 24
FEATURES = torch.arange(48).reshape(4, *SHAPE).half()


def labels(*names: str) -> list[tuple[str, str]]:
    return [(f"key of {name}", name) for name in names]


def test_rows_come_back_from_a_sealed_shard(tmp_path):
    with ShardWriter(tmp_path, ROW_BYTES) as shard:
        shard.append(FEATURES[:3], labels("a", "b", "c"))
        assert sorted(p.suffix for p in tmp_path.iterdir()) == [".part", ".part"]
        shard.append(FEATURES[3:], labels("d"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.index", "00000.rows"]
    assert torch.equal(map_rows(tmp_path / "00000.rows", SHAPE), FEATURES)
    rows = read_index(tmp_path / "00000.index")
    assert [(row.key, row.position, row.image) for row in rows] == [
        (f"key of {name}", i, name) for i, name in enumerate("abcd")
    ]


def test_a_shard_without_rows_leaves_nothing(tmp_path):
    with ShardWriter(tmp_path, ROW_BYTES):
        pass
    assert list(tmp_path.iterdir()) == []


def test_shards_are_numbered_in_turn(tmp_path):
    for _ in range(2):
        with ShardWriter(tmp_path, ROW_BYTES) as shard:
            shard.append(FEATURES[:1], labels("a"))
    assert [p.stem for p in sorted(tmp_path.glob("*.rows"))] == ["00000", "00001"]


def leave(folder, content: bytes, lines: str) -> None:
    """Leave a shard as a killed process would."""
    (folder / "00000.rows.part").write_bytes(content)
    (folder / "00000.index.part").write_text(lines)


@pytest.fixture
def whole(tmp_path):
    folder = tmp_path / "whole"
    folder.mkdir()
    with ShardWriter(folder, ROW_BYTES) as shard:
        shard.append(FEATURES, labels(*"abcd"))
    return (folder / "00000.rows").read_bytes(), (folder / "00000.index").read_text()


@pytest.mark.parametrize(
    ("num_bytes", "num_chars", "kept"),
    [(96, None, 4), (96, -3, 3), (95, None, 3), (50, None, 2), (96, 0, 0), (0, None, 0)],
)
def test_of_an_unfinished_shard_the_whole_rows_are_kept(
    tmp_path, whole, num_bytes, num_chars, kept
):
    content, lines = whole
    folder = tmp_path / "killed"
    folder.mkdir()
    leave(folder, content[:num_bytes], lines[:num_chars])
    assert recover(folder, ROW_BYTES) == kept
    assert [p.name for p in sorted(folder.iterdir())] == ["00000.index", "00000.rows"][: 2 * kept]
    if kept:
        assert torch.equal(map_rows(folder / "00000.rows", SHAPE), FEATURES[:kept])
        assert len(read_index(folder / "00000.index")) == kept


def test_rows_that_did_not_reach_the_disk_are_not_kept(tmp_path, whole):
    # After a power cut the index may know rows that are zeros in the file.
    folder = tmp_path / "cut"
    folder.mkdir()
    leave(folder, whole[0][:48] + bytes(48), whole[1])
    assert recover(folder, ROW_BYTES) == 2


@pytest.mark.parametrize("when", ["writing", "closing"])
def test_rows_that_an_error_lost_are_not_kept(tmp_path, when):
    def fail() -> None:
        raise OSError("the disk went away")

    def write() -> None:
        with ShardWriter(tmp_path, ROW_BYTES) as shard:
            shard.append(FEATURES, labels(*"abcd"))
            opened = shard._rows_file
            with (tmp_path / "00000.rows.part").open("r+b") as file:
                file.seek(2 * ROW_BYTES)
                file.write(b"lost")
            if when == "writing":
                fail()
            opened.close = lambda: (type(opened).close(opened), fail())

    with pytest.raises(OSError, match="the disk went away"):
        write()
    assert [row.image for row in read_index(tmp_path / "00000.index")] == ["a", "b"]


def test_files_are_on_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace

    def noted_fsync(descriptor):
        done.append(("on the disk", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def noted_replace(source, target):
        done.append((target.name, source.stat().st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    with ShardWriter(tmp_path, ROW_BYTES) as shard:
        shard.append(FEATURES, labels(*"abcd"))
    named = [i for i, (what, _) in enumerate(done) if what != "on the disk"]
    # A shard has its index last: with it, it is sealed.
    assert [done[i][0] for i in named] == ["00000.index.part", "00000.rows", "00000.index"]
    assert all(("on the disk", done[i][1]) in done[:i] for i in named)
    assert done[-1] == ("on the disk", tmp_path.stat().st_ino)


def test_files_without_their_counterpart_are_removed(tmp_path):
    for name in ("00000.rows", "00001.rows.part", "00002.index.new"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "00003.index.part").touch()
    assert recover(tmp_path, ROW_BYTES) == 0
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_read_up_to_its_first_line_that_is_not_whole(tmp_path):
    path = tmp_path / "00000.index"
    rows = [Row(f"{i}", i, i, f"{i}.png") for i in range(3)]
    write_index(path, rows)
    assert read_index(path) == rows
    path.write_text(path.read_text().replace(json.dumps(rows[1]), "\0\0"))
    assert read_index(path) == rows[:1]


def test_an_index_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "00000.index"
    rows = [Row(f"{i}", i, i, f"{i}.png") for i in range(3)]
    write_index(path, rows)

    def interrupted():
        yield rows[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_index(path, interrupted())
    assert read_index(path) == rows


def test_a_disk_that_is_full_after_all_is_explained_and_nothing_is_lost(mvtec_root, tmp_path):
    resource = pytest.importorskip("resource")
    samples = [s for s in index(mvtec_root) if s.split == "train"]
    extractor = FeatureExtractor(
        "test_efficientnet", weights="random", image_size=32, feature_size=4
    )
    how = Build(extractor, read_image, batch_size=2, progress=False)
    place = {"root": mvtec_root, "cache_dir": tmp_path}
    row_bytes = extractor.num_channels * 4 * 4 * 2
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5 * row_bytes, limits[1]))
        with pytest.raises(InputError, match=r"The disk is full at .* 4 of 8 images are kept"):
            FeatureCache.open_or_build(samples, how, **place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    opened = []

    def read(path, size):
        opened.append(path)
        return read_image(path, size)

    rest = Build(extractor, read, batch_size=2, progress=False)
    cache = FeatureCache.open_or_build(samples, rest, **place)
    assert len(opened) == 4
    for row, sample in enumerate(samples):
        expected = how.features(read_image(sample.image, 32)[None])[0]
        assert torch.equal(cache[row], expected)
