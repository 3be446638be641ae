"""`omiad train` from end to end, with a tiny backbone on a tiny data set, and what it refuses."""

import doctest
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import write_mvtec

import omiad
from omiad import recipe, workflow
from omiad.callbacks import LastCheckpoint
from omiad.cli import main
from omiad.detector import Detector

STAGE_1 = """
seed_everything: 0
trainer: {max_steps: 5, log_every_n_steps: 2}
model:
  class_path: omiad.modules.AMDMModule
  init_args:
    network: omiad.networks.unet_tiny
    feature_norm: channel
    t_init: 500
    num_steps: 1
    scoring: {pool_size: 4, memory_size: 20}
data: {image_size: 32, feature_size: 8, batch_size: 4, cache_dir: CACHE}
"""
STAGE_2 = """
trainer: {max_steps: 8, log_every_n_steps: 2}
model: {class_path: omiad.modules.OmiADModule}
data: {batch_size: 4}
"""
OPTIONS = "--preset=quick --backbone=test_efficientnet.r160_in1k --weights=random --device=cpu"


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Train for a few steps, on images of a few pixels."""
    folder = tmp_path_factory.mktemp("configs")
    names = str(folder / "stage_1.yaml"), str(folder / "stage_2.yaml")
    Path(names[0]).write_text(STAGE_1.replace("CACHE", str(folder / "cache")))
    Path(names[1]).write_text(STAGE_2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow.make, "__kwdefaults__", {"device": "auto", "configs": names})
        patch.setitem(recipe.STEPS, "quick", (5, 8))
        yield folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts") / "my_parts"
    write_mvtec(root, np.random.default_rng(0), num_train=6)
    return root


def train(photos: Path, out: Path, more: str = "") -> None:
    main(f"train {photos} --out={out} {OPTIONS} {more}".split())


@pytest.fixture(scope="module")
def trained(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "model"
    train(parts, out)
    return out


def output(capfd: pytest.CaptureFixture[str]) -> str:
    return " ".join(" ".join(capfd.readouterr()).split())


def error_of(photos: Path, out: Path, capfd: pytest.CaptureFixture[str], more: str = "") -> str:
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        train(photos, out, more)
    assert exit_info.value.code == 2
    return output(capfd)


def test_photographs_become_a_model_that_decides_and_a_page(trained: Path) -> None:
    detector = Detector.load(trained / "model.ckpt")
    assert detector.products.names == ["bottle", "cable"]
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    (found,) = detector.inspect(images, sizes=[(32, 32)], category="bottle")
    assert found.decision in ("ok", "defect")
    assert "<html" in (trained / "report.html").read_text()
    assert sorted(path.name for path in trained.iterdir()) == ["log", "model.ckpt", "report.html"]


@pytest.mark.slow
def test_python_trains_in_a_script_that_has_arguments_of_its_own(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script.py", "test", "--epochs=3"])
    for name, value in {"backbone": "test_efficientnet.r160_in1k", "weights": "random"}.items():
        monkeypatch.setitem(workflow.train.__kwdefaults__, name, value)
    (tmp_path / "my_parts").symlink_to(parts)
    (example,) = doctest.DocTestFinder().find(omiad.train, globs={})
    *steps, last = example.examples  # a run prints its progress and its figures
    names: dict[str, object] = {}
    for step in steps:
        exec(step.source, names)
    assert names["model"] == Path("model/model.ckpt")
    assert f"{eval(last.source, names)!r}\n" == last.want


@pytest.mark.slow  # by default tests/unit/test_tiled_products.py covers tiles
def test_photographs_are_cut_into_tiles_from_training_to_prediction(
    parts: Path, tmp_path: Path
) -> None:
    out, photograph = tmp_path / "model", next(parts.rglob("test/good/*.png"))
    train(parts, out, "--tiles=[1,2]")
    detector = Detector.load(out / "model.ckpt")
    assert detector.extractor.tiling.tiles == (1, 2)
    assert detector.predict(photograph).anomaly_map.shape == (32, 60)
    assert (out / "report.html").is_file()
    overlays = tmp_path / "found"
    main(f"predict {out}/model.ckpt {photograph} --output={overlays} --overlays=all".split())
    assert list((overlays / "overlays").iterdir())


def test_a_second_call_says_that_all_is_done(
    parts: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "model.ckpt").stat().st_mtime_ns
    train(parts, trained)
    said = output(capfd)
    assert f"'{trained}' is finished: nothing is left to do." in said
    assert f"next: omiad predict {trained}/model.ckpt PHOTOS" in said
    assert "stage" not in said
    assert (trained / "model.ckpt").stat().st_mtime_ns == before


def test_a_second_call_with_other_settings_is_refused(
    parts: Path, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert "(seed 0, not 1)" in error_of(parts, trained, capfd, "--seed=1")
    assert "(false_alarms None, not 0.2)" in error_of(parts, trained, capfd, "--false_alarms=0.2")


def interrupt_at(step: int, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once, when so many optimiser steps of a stage are done."""
    original = LastCheckpoint.on_train_batch_end

    def on_train_batch_end(self, trainer, module, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, module, *args)
        if trainer.global_step == step and type(module).__name__ == stage:
            monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", original)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_model(
    parts: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "model"
    for step, stage in ((3, "AMDMModule"), (5, "OmiADModule")):
        interrupt_at(step, stage, monkeypatch)
        with pytest.raises(SystemExit) as exit_info:
            train(parts, out)
        assert exit_info.value.code == 130
        said = output(capfd)
        assert f"'{out}' is not finished. Give the same command again to go on." in said
        assert f"Interrupted at step {step} of" in said
        assert "omiad fit" not in said
    train(parts, out)
    whole, resumed = (
        torch.load(folder / "model.ckpt", weights_only=True) for folder in (trained, out)
    )
    assert whole["omiad"]["detector"] == resumed["omiad"]["detector"]
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, resumed["state_dict"][name]), name
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_each_step_says_once_what_it_reads_and_the_time_comes_before_training(
    parts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flat, out = tmp_path / "flat", tmp_path / "model"
    shutil.copytree(parts / "bottle" / "train" / "good", flat)
    train(flat, out)
    said = output(capfd)
    assert Detector.load(out / "model.ckpt").products.names == ["flat"]
    assert said.count("data: flat") == 3  # the check and both stages; nothing to test
    assert said.index("expected time: ") < said.index("run folder: ")
    assert "logging interval" not in said
    assert not list((out / "log").glob("test*"))


def test_what_cannot_be_trained_on_is_named_and_leaves_nothing(
    parts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = sorted((parts / "bottle/train/good").iterdir())
    out = tmp_path / "model"
    for name, count in (("none", 0), ("one", 1), ("three", 3), ("broken", 6), ("six", 6)):
        (tmp_path / name).mkdir()
        for file in good[:count]:
            shutil.copy(file, tmp_path / name)
    for file in (tmp_path / "broken").iterdir():
        file.write_bytes(b"no image")
    assert "'" + str(tmp_path / "none") in error_of(tmp_path / "none", out, capfd)
    for name, number in (("one", 1), ("three", 3)):
        said = error_of(tmp_path / name, out, capfd)
        assert f"'{name}' has too few normal photographs ({number})" in said
    assert "have the errors above" in error_of(tmp_path / "broken", out, capfd)
    said = error_of(tmp_path / "six", out, capfd, "--false_alarms=0.01")
    assert "'six'" in said
    assert "99 photographs" in said
    assert "between 0 and 1" in error_of(tmp_path / "six", out, capfd, "--false_alarms=2")
    assert "gone" in error_of(tmp_path / "gone", out, capfd)
    assert not out.exists()


def test_a_folder_of_another_run_is_refused(
    parts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results.json").write_text("{}")
    assert "holds something else than a model" in error_of(parts, tmp_path, capfd)
    state = tmp_path / "other/log/state.json"
    state.parent.mkdir(parents=True)
    for text in ("{", "[]", '{"settings": 3, "done": []}'):
        state.write_text(text)
        assert f"'{state}' is damaged" in error_of(parts, tmp_path / "other", capfd)
