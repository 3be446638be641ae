"""`omiad cache`: what is there, whether it is whole, what may go."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from omiad.cli import main
from omiad.data import FeatureDataModule
from omiad.features import FeatureCache
from omiad.features.store import FeatureStore, stores
from omiad.features.upkeep import describe, prune, verify

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "feature_size": 4}
FLAGS = [f"--data.{name}={value}" for name, value in TINY.items()]


@pytest.fixture
def root(mvtec_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mvtec_root, tmp_path / "data"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def open_cache(root: Path, cache_dir: Path, **kwargs) -> FeatureCache:
    data = FeatureDataModule(str(root), cache_dir=str(cache_dir), **TINY, **kwargs)
    return data.features("train")


def store_in(cache_dir: Path) -> FeatureStore:
    (store,) = stores(cache_dir)
    return store


def damage(cache: FeatureCache, row: int) -> None:
    with cache.path.open("r+b") as file:
        file.seek(row * cache[0].numel() * 2)
        file.write(b"damage")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_damaged_rows_are_found_removed_and_computed_again(root, cache_dir):
    cache = open_cache(root, cache_dir)
    rows = [row.clone() for row in cache]
    damage(cache, 2)
    store = store_in(cache_dir)
    assert verify(store) == ["bottle/train/good/002.png"]
    assert verify(store) == []
    assert len(store_in(cache_dir).entries) == 7
    again = open_cache(root, cache_dir)
    assert all(torch.equal(again[i], rows[i]) for i in range(8))


def test_features_of_changed_and_removed_images_are_pruned_and_all_others_kept(root, cache_dir):
    rows = [row.clone() for row in open_cache(root, cache_dir)]
    assert prune(store_in(cache_dir)) == 0
    Image.new("RGB", (32, 32)).save(root / "bottle/train/good/000.png")
    (root / "bottle/train/good/001.png").unlink()
    cache = open_cache(root, cache_dir)
    store = store_in(cache_dir)
    assert (store.num_rows, len(store.entries)) == (9, 8)
    assert prune(store) >= 2 * store.row_bytes
    store = store_in(cache_dir)
    assert store.num_rows == len(store.entries) == 7
    assert torch.equal(cache[6], rows[7])  # mapped before the rows were rewritten
    again = open_cache(root, cache_dir)
    assert all(torch.equal(again[i], rows[i + 1]) for i in range(1, 7))
    assert store_in(cache_dir).num_rows == 7


def test_what_was_not_used_for_long_is_pruned_whole(root, cache_dir):
    open_cache(root, cache_dir)
    store = store_in(cache_dir)
    assert prune(store, unused_days=1) == 0
    os.utime(store.folder / "train.json", (0, 0))
    assert prune(store, unused_days=1) > 8 * store.row_bytes
    assert stores(cache_dir) == []


def test_pruning_keeps_the_statistics_of_streamed_features(root, cache_dir):
    open_cache(root, cache_dir, cache=False)
    (store_in(cache_dir).folder / "train.json.77.new").touch()  # of a killed process
    prune(store_in(cache_dir))
    assert describe(store_in(cache_dir))["splits"] == ["streamed-train"]
    assert not list(cache_dir.glob("*/*.new"))


def test_a_store_is_described_as_plain_data(root, cache_dir):
    open_cache(root, cache_dir)
    record = describe(store_in(cache_dir))
    assert (record["images"], record["splits"], record["root"]) == (8, ["train"], str(root))
    assert record["bytes"] > 8 * 2 * 4 * 4 * record["shape"][0]
    assert record["root_exists"]
    assert json.loads(json.dumps(record)) == record
    shutil.rmtree(root)
    assert not describe(store_in(cache_dir))["root_exists"]


def test_the_commands_build_list_verify_and_prune(root, cache_dir, capsys):
    where = f"--cache_dir={cache_dir}"
    main(["cache", "build", f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS])
    assert "8 images are there" in said(capsys)
    main(["cache", "info", where])
    assert f"{root}: test_efficientnet in float32, 32 pixels, 120x4x4: 8 images" in said(capsys)
    main(["cache", "info", where, "--json=true"])
    assert json.loads(capsys.readouterr().out)[0]["images"] == 8
    main(["cache", "verify", where])
    assert "8 images whole, 0 damaged" in said(capsys)
    damage(open_cache(root, cache_dir), 5)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["cache", "verify", where])
    assert exit_info.value.code == 2
    assert f"{root}/cable/train/good/001.png" in said(capsys)
    main(["cache", "prune", where])
    assert "freed in" in said(capsys)


def test_the_cache_of_a_run_is_built_from_its_configuration(root, cache_dir, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(
        f"""
seed_everything: 3
trainer: {{precision: bf16-mixed, max_steps: 5}}
model: {{class_path: omiad.modules.AMDMModule, init_args: {{t_init: 500}}}}
data:
  root: {root}
  cache_dir: {cache_dir}
  backbone: test_efficientnet
  weights: random
  image_size: 32
  feature_size: 4
"""
    )
    main(["cache", "build", f"--config={config}", "--data.cache=all", "--device=cpu"])
    store = store_in(cache_dir)
    assert store.made_of["precision"] == "bfloat16"
    assert len(store.entries) == 20
    assert describe(store)["splits"] == ["test", "train"]
    assert prune(store) == 0  # the lists of both splits need their features


def test_the_size_of_all_splits_is_said_and_refused_before_any_work(
    root, cache_dir, capsys, monkeypatch
):
    row_bytes = 2 * 120 * 4 * 4
    free = shutil.disk_usage(root)._replace(free=10 * row_bytes)  # enough for the 8 of train
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    flags = [f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS, "--data.cache=all"]
    with pytest.raises(SystemExit):
        main(["cache", "build", *flags])
    sentence = said(capsys)
    assert f"{20 * row_bytes / 2**20:.1f} MiB to add" in sentence
    assert "--data.cache_dir" in sentence
    assert store_in(cache_dir).entries == {}


def test_a_build_of_nothing_is_refused(root, cache_dir, capsys):
    flags = [f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS]
    with pytest.raises(SystemExit):
        main(["cache", "build", *flags, "--data.cache=false"])
    assert "--data.cache false" in said(capsys)


@pytest.mark.parametrize("command", ["info", "verify", "prune"])
def test_a_missing_folder_is_named(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["cache", command, f"--cache_dir={tmp_path / 'nowhere'}"])
    assert "No feature caches at" in said(capsys)
