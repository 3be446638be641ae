"""`omiad cache`: what is there, whether it is whole, what nobody needs."""

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
from omiad.features.store import stores
from omiad.features.upkeep import describe, find_damage, prune, stale_views, verify

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "feature_size": 4}
FLAGS = [f"--data.{name}={value}" for name, value in TINY.items()]


@pytest.fixture
def root(mvtec_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mvtec_root, tmp_path / "data"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def open_cache(root: Path, cache_dir: Path) -> FeatureCache:
    data = FeatureDataModule(str(root), cache_dir=str(cache_dir), **TINY)
    features = data.features("train")
    assert isinstance(features, FeatureCache)
    return features


def damage(cache: FeatureCache, row: int) -> None:
    (rows,) = cache.path.glob("*.rows")
    with rows.open("r+b") as file:
        file.seek(row * cache[0].numel() * 2)
        file.write(b"damage")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_damaged_rows_are_found_taken_out_and_computed_again(root, cache_dir):
    rows = [row.clone() for row in open_cache(root, cache_dir)]
    cache = open_cache(root, cache_dir)
    damage(cache, 2)
    (store,) = stores(cache_dir)
    assert [d.row.image for d in find_damage(store)] == ["bottle/train/good/002.png"]
    assert [d.row.position for d in verify(store)] == [2]
    assert len(store.index()) == 7
    assert verify(store) == []
    again = open_cache(root, cache_dir)
    assert all(torch.equal(again[i], rows[i]) for i in range(8))
    assert len(stores(cache_dir)[0].index()) == 8


def test_features_of_changed_images_are_pruned_and_all_others_kept(root, cache_dir):
    kept = open_cache(root, cache_dir)[3].clone()
    assert prune(stores(cache_dir)[0]) == 0
    Image.new("RGB", (32, 32)).save(root / "bottle/train/good/000.png")
    cache = open_cache(root, cache_dir)
    (store,) = stores(cache_dir)
    assert len(store.index()) == 9
    (stale,) = stale_views(store, None)
    assert stale.exists()
    assert prune(store) >= store.row_bytes
    assert len(store.index()) == 8
    assert torch.equal(cache[3], kept)  # mapped before its shard was rewritten
    again = open_cache(root, cache_dir)
    assert torch.equal(again[3], kept)
    assert len(store.index()) == 8


def test_what_was_not_used_for_long_is_pruned_whole(root, cache_dir):
    open_cache(root, cache_dir)
    (store,) = stores(cache_dir)
    assert prune(store, unused_days=1) == 0
    for view in (store.folder / "views").iterdir():
        os.utime(view, (0, 0))
    assert prune(store, unused_days=1) > 8 * store.row_bytes
    assert stores(cache_dir) == []


def test_a_store_is_described_as_plain_data(root, cache_dir):
    open_cache(root, cache_dir)
    record = describe(stores(cache_dir)[0])
    assert record["images"] == 8
    assert record["unfinished"] is False
    assert record["used_by"] == [f"train of {root}"]
    assert record["bytes"] > 8 * 2 * 4 * 4 * record["shape"][0]
    assert json.loads(json.dumps(record)) == record


def test_the_commands_build_list_verify_and_prune(root, cache_dir, capsys):
    where = f"--cache_dir={cache_dir}"
    main(["cache", "build", f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS])
    assert "8 images are there" in said(capsys)
    main(["cache", "info", where])
    listed = said(capsys)
    assert "test_efficientnet in float32, 32 pixels, 120x4x4: 8 images, 0.0 MiB" in listed
    main(["cache", "info", where, "--json=true"])
    assert json.loads(capsys.readouterr().out)[0]["images"] == 8
    main(["cache", "verify", where])
    assert "8 images whole, 0 damaged" in said(capsys)
    damage(open_cache(root, cache_dir), 5)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["cache", "verify", where])
    assert exit_info.value.code == 2
    sentence = said(capsys)
    assert "cached features of 1 images were damaged (the first: 'cable/train/good/001.png')" in (
        sentence
    )
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
    (store,) = stores(cache_dir)
    assert store.made_of["autocast_dtype"] == "torch.bfloat16"
    assert len(store.index()) == 20
    assert describe(store)["used_by"] == [f"test of {root}", f"train of {root}"]
    assert prune(store) == 0  # the lists of both splits need their features


def test_the_size_of_all_splits_is_told_and_refused_before_any_work(root, cache_dir, capsys):
    flags = [f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS, "--data.cache=all"]
    row_bytes = 2 * 120 * 4 * 4
    budget = (10 * row_bytes + 2000) / 2**30  # enough for the 8 of train
    with pytest.raises(SystemExit):
        main(["cache", "build", *flags, f"--data.cache_budget={budget}"])
    sentence = said(capsys)
    assert f"{20 * row_bytes / 2**20:.1f} MiB to add" in sentence
    assert "above --data.cache_budget" in sentence
    assert len(stores(cache_dir)[0].index()) == 0


def test_a_build_of_nothing_is_refused(root, cache_dir, capsys):
    flags = [f"--data.root={root}", f"--data.cache_dir={cache_dir}", *FLAGS]
    with pytest.raises(SystemExit):
        main(["cache", "build", *flags, "--data.cache=false"])
    assert "--data.cache false keeps no features" in said(capsys)


@pytest.mark.parametrize("command", ["info", "verify", "prune"])
def test_a_folder_that_is_not_there_is_named(command, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["cache", command, f"--cache_dir={tmp_path / 'nowhere'}"])
    assert "No feature caches at" in said(capsys)
