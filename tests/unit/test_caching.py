"""`omiad cache`: what is there, whether it is whole, what may go."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from omiad.caching import describe, prune
from omiad.cli import main
from omiad.data import FeatureDataModule
from omiad.features import FeatureCache
from omiad.features.store import FeatureStore, stores

TINY = {"backbone": "test_efficientnet", "weights": "random", "image_size": 32, "feature_size": 4}


@pytest.fixture
def root(mvtec_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mvtec_root, tmp_path / "data"))


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def open_cache(root, cache_dir):
    def open_cache(**kwargs) -> FeatureCache:
        data = FeatureDataModule(str(root), cache_dir=str(cache_dir), **TINY, **kwargs)
        return data.features("train")

    return open_cache


@pytest.fixture
def run(root, cache_dir, capsys):
    """Run a command; return what it prints."""

    def run(command: str, *args: str, code: int | None = None) -> str:
        if command == "build":
            options = {"root": root, "cache_dir": cache_dir, **TINY}
            flags = [f"--data.{name}={value}" for name, value in options.items()]
        else:
            flags = [f"--cache_dir={cache_dir}"]
        capsys.readouterr()
        if code is None:
            main(["cache", command, *flags, *args])
        else:
            with pytest.raises(SystemExit) as exit_info:
                main(["cache", command, *flags, *args])
            assert exit_info.value.code == code
        captured = capsys.readouterr()
        return " ".join((captured.out + captured.err).split())

    return run


def store_in(cache_dir: Path) -> FeatureStore:
    (store,) = stores(cache_dir)
    return store


def test_features_of_changed_and_removed_images_are_pruned_and_all_others_kept(
    open_cache, root, cache_dir
):
    rows = [row.clone() for row in open_cache()]
    assert prune(store_in(cache_dir)) == 0
    Image.new("RGB", (32, 32)).save(root / "bottle/train/good/000.png")
    (root / "bottle/train/good/001.png").unlink()
    cache = open_cache()
    store = store_in(cache_dir)
    assert (store.num_rows, len(store.entries)) == (9, 8)
    assert prune(store) >= 2 * store.row_bytes
    assert torch.equal(cache[6], rows[7])  # mapped before the rows were rewritten
    again = open_cache()
    assert all(torch.equal(again[i], rows[i + 1]) for i in range(1, 7))
    store = store_in(cache_dir)
    assert store.num_rows == len(store.entries) == 7


def test_what_was_not_used_for_long_is_pruned_whole(open_cache, cache_dir):
    open_cache()
    store = store_in(cache_dir)
    assert prune(store, unused_days=1) == 0
    os.utime(store.folder / "train.json", (0, 0))
    assert prune(store, unused_days=1) > 8 * store.row_bytes
    assert stores(cache_dir) == []


def test_pruning_keeps_the_statistics_of_streamed_features(open_cache, cache_dir):
    open_cache(cache=False)
    left = store_in(cache_dir).folder / ".77.train.json.part"  # by a killed process
    left.touch()
    os.utime(left, (0, 0))
    prune(store_in(cache_dir))
    assert describe(store_in(cache_dir))["splits"] == ["streamed-train"]
    assert not left.exists()


def test_the_commands_build_list_verify_and_prune(run, open_cache, root, cache_dir):
    assert "8 images are there" in run("build")
    assert f"{root}: test_efficientnet in float32, 32 pixels, 120x4x4: 8 images" in run("info")
    assert "8 images whole, 0 damaged" in run("verify")
    cache = open_cache()
    with cache.path.open("r+b") as file:
        file.seek(5 * cache[0].numel() * 2)
        file.write(b"damage")
    assert f"{root}/cable/train/good/001.png" in run("verify", code=2)
    assert "7 images whole, 0 damaged" in run("verify")
    assert "freed in" in run("prune")
    shutil.rmtree(root)
    (record,) = json.loads(run("info", "--json"))
    assert record == describe(store_in(cache_dir))
    assert (record["images"], record["splits"], record["root_exists"]) == (7, ["train"], False)
    assert record["bytes"] > 8 * 2 * 120 * 4 * 4


def test_the_cache_of_a_run_is_built_from_its_configuration(root, cache_dir, tmp_path):
    data = {"root": str(root), "cache_dir": str(cache_dir), **TINY}
    model = {"class_path": "omiad.modules.AMDMModule", "init_args": {"t_init": 500}}
    trainer = {"precision": "bf16-mixed", "max_steps": 5}
    config = tmp_path / "run.yaml"
    config.write_text(
        json.dumps({"seed_everything": 3, "trainer": trainer, "model": model, "data": data})
    )
    main(["cache", "build", f"--config={config}", "--data.cache=all", "--device=cpu"])
    store = store_in(cache_dir)
    assert store.made_of["precision"] == "bfloat16"
    assert len(store.entries) == 20
    assert describe(store)["splits"] == ["test", "train"]
    prune(store)
    assert (len(store.entries), store.num_rows) == (20, 20)  # both splits need their features


def test_the_size_of_all_splits_is_said_and_refused_before_any_work(run, cache_dir, monkeypatch):
    row_bytes = 2 * 120 * 4 * 4
    free = shutil.disk_usage("/")._replace(free=10 * row_bytes)  # enough for the 8 of train
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    said = run("build", "--data.cache=all", code=2)
    assert f"{20 * row_bytes / 2**20:.1f} MiB to add" in said
    assert "--data.cache_dir" in said
    assert store_in(cache_dir).entries == {}


def test_a_build_of_nothing_and_a_missing_folder_are_refused(run):
    assert "--data.cache false" in run("build", "--data.cache=false", code=2)
    for command in ("info", "verify", "prune"):
        assert "No feature caches at" in run(command, code=2)
