"""The command line from end to end, in process, on a tiny data set in the MVTec layout."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import yaml
from lightning import Trainer
from PIL import Image

from omiad import AMDMModule, FeatureDataModule
from omiad.callbacks import LastCheckpoint
from omiad.cli import main
from omiad.data.images import read_image
from omiad.detector import Detector
from omiad.features import weights_hash
from omiad.metrics import METRICS
from omiad.networks import UNet
from omiad.scoring import Scoring

TINY = [
    "--data.backbone=test_efficientnet.r160_in1k",
    "--data.weights=random",
    "--data.image_size=32",
    "--data.feature_size=8",
    "--data.batch_size=4",
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.max_epochs=-1",
]
AMDM = [
    "--model=omiad.modules.AMDMModule",
    "--model.network=omiad.networks.UNet",
    "--model.network.width=8",
    "--model.network.multipliers=[1,2]",
    "--model.network.num_blocks=1",
    "--model.network.attention_factors=[2]",
    "--model.feature_norm=channel",
    "--model.t_init=500",
    "--model.num_steps=2",
    "--model.scoring.pool_size=4",
]


def fit_amdm(root: Path, out: Path, *extra: str) -> Path:
    cache = f"--data.cache_dir={out / 'cache'}"
    run = f"--run_dir={out / 'amdm'}"
    main(["fit", *AMDM, *TINY, f"--data.root={root}", cache, run, "--trainer.max_steps=3", *extra])
    return out / "amdm" / "checkpoints" / "last.ckpt"


def fit_omiad(root: Path, out: Path, teacher: Path, *extra: str) -> Path:
    main(
        [
            "fit",
            "--model=omiad.modules.OmiADModule",
            f"--model.teacher={teacher}",
            f"--data.root={root}",
            f"--run_dir={out / 'omiad'}",
            "--data.batch_size=4",
            "--trainer.accelerator=cpu",
            "--trainer.log_every_n_steps=1",
            "--trainer.enable_progress_bar=false",
            "--trainer.max_epochs=-1",
            "--trainer.max_steps=6",
            *extra,
        ]
    )
    return out / "omiad" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def road(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both stages trained once, for the tests that only read them."""
    out = tmp_path_factory.mktemp("road")
    data = out / "data"
    shutil.copytree(mvtec_root, data)
    teacher = fit_amdm(data, out)
    return {"out": out, "data": data, "amdm": teacher, "omiad": fit_omiad(data, out, teacher)}


def run_test(checkpoint: Path, folder: Path, *extra: str) -> dict:  # type: ignore[type-arg]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    main(["test", f"--ckpt_path={checkpoint}", f"--run_dir={folder}", *quiet, *extra])
    return json.loads((folder / "results.json").read_text())  # type: ignore[no-any-return]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 2
    return capsys.readouterr().err


def test_fit_leaves_config_metrics_curves_and_checkpoint(road: dict[str, Path]) -> None:
    for run in ("amdm", "omiad"):
        folder = road["out"] / run
        for name in ("config.yaml", "metrics.csv", "curves.png", "checkpoints/last.ckpt"):
            assert (folder / name).stat().st_size > 0, name


def test_test_needs_nothing_but_the_checkpoint(road: dict[str, Path], tmp_path: Path) -> None:
    results = run_test(road["omiad"], tmp_path / "run")
    assert results["dataset"] == road["data"].name
    assert results["protocol"] == "uniad"
    assert results["selected_on"] == "last"
    assert results["model"]["num_steps"] == 1
    assert len(results["categories"]) == 2
    for figures in (*results["categories"].values(), results["mean"]):
        assert set(figures) == {*METRICS, "mad"}
        assert all(0 <= value <= 1 for value in figures.values())
    assert set(results["n"].values()) == {2}
    assert results["seed"] == 0
    assert results["latency"]["ms_per_image"] > 0
    assert results["latency"]["batch_size"] == 12
    assert len(list((tmp_path / "run" / "panels").glob("*.png"))) == 2


def test_a_decoder_changes_the_pictures_and_no_figure(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    detector, run = f"--model.detector={road['omiad']}", f"--run_dir={tmp_path / 'decoder'}"
    steps = ["--trainer.max_steps=2", "--trainer.max_epochs=-1", "--trainer.log_every_n_steps=1"]
    main(["fit", "--config=configs/decoder.yaml", detector, run, *steps, *quiet])
    checkpoint = tmp_path / "decoder" / "checkpoints" / "last.ckpt"
    with_decoder = run_test(checkpoint, tmp_path / "with")
    plain = run_test(road["omiad"], tmp_path / "plain")
    for key in ("categories", "mean", "n", "further", "bounds"):
        assert with_decoder[key] == plain[key]
    assert with_decoder["model"]["kind"] == plain["model"]["kind"] == "OmiAD"
    for picture in (tmp_path / "plain" / "panels").glob("*.png"):
        with (
            Image.open(picture) as without,
            Image.open(tmp_path / "with" / "panels" / picture.name) as drawn,
        ):
            assert drawn.width > without.width
    main(["report", str(tmp_path / "with"), f"--out={tmp_path / 'page'}"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count('"reconstruction":"data:image') == 12
    # Its run goes on from the checkpoint alone, which is no teacher.
    more = ["--trainer.max_steps=3", *quiet]
    main(["fit", f"--ckpt_path={checkpoint}", f"--run_dir={tmp_path / 'go'}", *more])
    with pytest.raises(SystemExit):
        fit_omiad(road["data"], tmp_path, checkpoint)
    assert "holds an image decoder model" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--protocol=ader", "--image_size=32", "--pool_size=3"],
        ["--protocol=dinomaly", "--image_size=32", "--estimator=source"],
    ],
)
def test_saved_maps_get_the_same_figures_to_the_last_digit(
    road: dict[str, Path], tmp_path: Path, options: list[str]
) -> None:
    tested = run_test(road["omiad"], tmp_path / "run", "--save_maps", *options)
    output = tmp_path / "evaluated.json"
    given = [f"--maps={tmp_path / 'run' / 'maps'}", f"--data.root={road['data']}"]
    models_own = ["--image_size=32", "--pool_size=4"]  # which `test` takes without a protocol
    main(["evaluate", *given, f"--output={output}", *(options or models_own)])
    evaluated = json.loads(output.read_text())
    shared = {"categories", "mean", "n", "notes", "further", "bounds", "intervals", "protocol"}
    assert shared < tested.keys() == evaluated.keys()
    for key in (*shared, "protocol_steps", "protocol_changes", "estimator", "dataset"):
        assert evaluated[key] == tested[key], key


def test_maps_that_the_model_blurs_are_saved_with_the_image_scores_before(
    road: dict[str, Path], tmp_path: Path
) -> None:
    blurs = "--model.scoring.blur_sigma=2"
    tested = run_test(road["omiad"], tmp_path / "run", "--save_maps", blurs)
    sharp = run_test(road["omiad"], tmp_path / "sharp")
    output, run = tmp_path / "evaluated.json", tmp_path / "run"
    given = [f"--maps={run / 'maps'}", f"--data.root={road['data']}", "--image_size=32"]
    models_own = [f"--scores={run / 'scores.csv'}", "--pool_size=4"]
    main(["evaluate", *given, *models_own, f"--output={output}"])
    evaluated = json.loads(output.read_text())
    for category, figures in tested["categories"].items():
        assert evaluated["categories"][category] == figures
        changed = {key for key in figures if figures[key] != sharp["categories"][category][key]}
        assert changed
        assert not any(key.startswith("image_") for key in changed)
    main(["report", str(run), str(output), f"--out={tmp_path / 'page'}"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "measured in different ways" not in page
    assert "<dt>upsampling</dt><dd>bilinear, corners aligned; Gaussian, sigma 2" in page


def test_a_protocol_is_printed_and_stored_with_each_step(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ader = ["--protocol=ader", "--image_size=32"]
    results = run_test(road["omiad"], tmp_path / "ader", *ader)
    assert results["protocol"] == "ader"
    assert results["protocol_changes"] == {"input_size": 32, "map_size": 32}
    assert results["protocol_steps"]["blur"] == "Gaussian, sigma 4, edges reflected"
    printed = " ".join(capsys.readouterr().out.split())
    assert "protocol ader (changed): input resize: 32 x 32, bilinear; mask resize" in printed
    blurred = run_test(road["omiad"], tmp_path / "blurred", "--model.scoring.blur_sigma=2")
    assert blurred["protocol_steps"]["upsampling"].endswith(
        "corners aligned; Gaussian, sigma 2, after the image score"
    )
    assert blurred["protocol_changes"]["pool_size"] == 4  # the model's own


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--protocol=ader"],
            "Protocol ader gives a model 256 x 256 pixels, but this one was trained on whole "
            "images of 32 x 32. Add --image_size 32",
        ),
        (["--protocol=dinomaly"], "a model 392 x 392 pixels cut from 448 x 448 pixels, but this"),
        (["--image_size=64"], "Protocol uniad gives a model 64 x 64 pixels, but this one"),
        (["--protocol=mine"], "No protocol 'mine'. Choose one of uniad, ader, dinomaly"),
        (["--pool_size=33"], "pool_size 33 is larger than the maps of 32 pixels"),
        (["--tolerance=-1"], "tolerance must not be negative, but got -1.0"),
        (
            ["--protocol=ader", "--image_size=32", "--model.scoring.blur_sigma=2"],
            "The model blurs its maps (sigma 2), and protocol ader would blur them again",
        ),
    ],
)
def test_a_protocol_that_does_not_fit_the_model_is_explained(
    road: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    sentence: str,
) -> None:
    given = [f"--ckpt_path={road['omiad']}", f"--run_dir={tmp_path / 'run'}", *options]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert sentence in " ".join(error_of(["test", *given, *quiet], capsys).split())
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_checkpoint_stands_alone(road: dict[str, Path], tmp_path: Path) -> None:
    expected = run_test(road["omiad"], tmp_path / "before")
    teacher = Detector.load(road["amdm"]).denoiser.network
    alone = tmp_path / "alone.ckpt"
    shutil.copy(road["omiad"], alone)
    hidden = [(road["out"] / name, tmp_path / name) for name in ("amdm", "omiad", "cache")]
    for path, place in hidden:
        shutil.move(path, place)
    try:
        after = run_test(alone, tmp_path / "after")
        assert after["categories"] == expected["categories"]
        assert after["weights"]["teacher"] == weights_hash(teacher)
    finally:
        for path, place in hidden:
            shutil.move(place, path)


def test_a_flag_beats_the_checkpoint(road: dict[str, Path], tmp_path: Path) -> None:
    before = run_test(road["amdm"], tmp_path / "a")
    assert before["model"]["num_steps"] == 2
    assert before["weights"] == {
        "model": weights_hash(Detector.load(road["amdm"]).denoiser.network)
    }
    assert run_test(road["amdm"], tmp_path / "b", "--model.num_steps=1")["model"]["num_steps"] == 1
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(road["data"], elsewhere)
    moved = run_test(road["amdm"], tmp_path / "c", f"--data.root={elsewhere}")
    assert moved["dataset"] == "elsewhere"


def test_an_amdm_checkpoint_under_an_omiad_config_is_refused(
    road: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = error_of(
        ["test", "--config=configs/omiad_folder.yaml", f"--ckpt_path={road['amdm']}"], capsys
    )
    assert "holds an AMDMModule, but the configuration asks for OmiADModule" in sentence


def test_an_omiad_checkpoint_is_no_teacher(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit_omiad(road["data"], tmp_path, road["omiad"])
    assert "only an AMDM checkpoint can be distilled" in capsys.readouterr().err


def test_another_backbone_than_the_teachers_is_refused(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--data.backbone=test_resnet.r160_in1k", "--data.weights=random"]
    with pytest.raises(SystemExit):
        fit_omiad(road["data"], tmp_path, road["amdm"], *other, f"--data.cache_dir={tmp_path}")
    assert "--data.backbone is test_resnet.r160_in1k, but the teacher" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("grid=average", "grid is average, but the teacher was trained with uniad"),
    ],
)
def test_an_option_that_an_older_teacher_never_knew_is_refused(
    road: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    said: str,
) -> None:
    checkpoint = torch.load(road["amdm"], weights_only=False)
    del checkpoint["omiad"]["detector"]["extractor"][option.partition("=")[0]]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    fitted = [road["data"], tmp_path / "run", tmp_path / "old.ckpt"]
    with pytest.raises(SystemExit):
        fit_omiad(*fitted, f"--data.{option}", f"--data.cache_dir={tmp_path}")
    assert f"--data.{said}" in " ".join(capsys.readouterr().err.split())


def test_predict_agrees_with_the_detector_and_draws(road: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "predictions"
    main(
        [
            "predict",
            f"--ckpt_path={road['omiad']}",
            f"--images={road['data']}",
            f"--output={output}",
            "--device=cpu",
            "--batch_size=3",
        ]
    )
    rows = read_table(output / "predictions.csv")
    assert len(rows) == sum(1 for p in road["data"].rglob("*.png"))
    for row in rows:
        assert (output / row["overlay"]).is_file()
    assert f"All {len(rows)} photographs." in (output / "index.html").read_text()
    detector = Detector.load(road["omiad"])
    image = read_image(Path(rows[5]["image"]), 32)
    assert float(rows[5]["score"]) == pytest.approx(detector(image[None]).score.item(), rel=1e-4)


def test_predict_scores_the_rest_and_names_a_corrupt_image(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(next(road["data"].glob("*/test/good")), images)
    (images / "zz_broken.png").write_bytes(b"no image")
    output = tmp_path / "out"
    arguments = [f"--images={images}", f"--output={output}", "--device=cpu"]
    sentence = error_of(["predict", f"--ckpt_path={road['omiad']}", *arguments], capsys)
    assert "zz_broken.png" in sentence
    assert len(read_table(output / "predictions.csv")) == 3


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once, when that many optimiser steps are done."""
    original = LastCheckpoint.on_train_batch_end

    def on_train_batch_end(self, trainer, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, *args)
        if trainer.global_step == step:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)


def assert_same_run(checkpoint: Path, other: Path) -> None:
    a, b = (torch.load(path, weights_only=True) for path in (checkpoint, other))
    assert a["omiad"]["progress"] == b["omiad"]["progress"]
    for name, weights in a["state_dict"].items():
        assert torch.equal(weights, b["state_dict"][name]), name


def test_an_interrupted_run_goes_on_to_the_same_weights(
    road: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 8 training images in batches of 4: step 3 lies in the middle of the second epoch.
    whole = fit_amdm(road["data"], tmp_path / "whole", "--trainer.max_steps=5")
    interrupt_at(3, monkeypatch)
    with pytest.raises(SystemExit):
        fit_amdm(road["data"], tmp_path / "part", "--trainer.max_steps=5")
    part = tmp_path / "part" / "amdm" / "checkpoints" / "last.ckpt"
    assert torch.load(part, weights_only=True)["global_step"] == 3
    main(["fit", f"--ckpt_path={part}", f"--run_dir={tmp_path / 'go'}"])
    assert_same_run(whole, tmp_path / "go" / "checkpoints" / "last.ckpt")


def test_a_run_whose_configuration_is_older_goes_on(road: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(road["out"] / "amdm", tmp_path / "old")
    with (tmp_path / "old" / "config.yaml").open("a") as config:
        config.write("panels:\n  num_per_category: 6\nsave_maps: false\n")
    checkpoint = tmp_path / "old" / "checkpoints" / "last.ckpt"
    more = [f"--run_dir={tmp_path / 'new'}", "--trainer.max_steps=4"]
    main(["fit", f"--ckpt_path={checkpoint}", *more])
    last = tmp_path / "new" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_without_a_cache_the_weights_are_the_same(road: dict[str, Path], tmp_path: Path) -> None:
    assert_same_run(fit_amdm(road["data"], tmp_path, "--data.cache=false"), road["amdm"])
    assert not list((tmp_path / "cache").glob("*/*.rows"))


def test_a_cached_test_split_gives_the_same_results(road: dict[str, Path], tmp_path: Path) -> None:
    def scores_of(name: str, *extra: str) -> dict[str, bytes]:
        run = [f"--run_dir={tmp_path / name}", "--trainer.accelerator=cpu", "--save_maps"]
        main(["test", f"--ckpt_path={road['amdm']}", *run, "--num_in_panel=1", *extra])
        maps = sorted((tmp_path / name / "maps").rglob("*.npy"))
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in maps}

    cached = ["--data.cache=all", f"--data.cache_dir={tmp_path / 'cache'}"]
    streamed, first, again = scores_of("a"), scores_of("b", *cached), scores_of("c", *cached)
    assert len(list((tmp_path / "cache").glob("*/*.rows"))) == 1
    assert streamed
    assert streamed == first == again
    for picture in (tmp_path / "a" / "panels").iterdir():
        assert (tmp_path / "c" / "panels" / picture.name).read_bytes() == picture.read_bytes()
    a, c = (json.loads((tmp_path / run / "results.json").read_text()) for run in "ac")
    assert a["categories"] == c["categories"]


def test_an_interrupted_distillation_goes_on_to_the_same_weights(
    road: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After one batch of psi alone each batch is two steps: 7 steps are 4 batches.
    steps = "--trainer.max_steps=11"
    whole = fit_omiad(road["data"], tmp_path / "whole", road["amdm"], steps)
    interrupt_at(5, monkeypatch)
    with pytest.raises(SystemExit):
        fit_omiad(road["data"], tmp_path / "part", road["amdm"], steps)
    part = tmp_path / "part" / "omiad" / "checkpoints" / "last.ckpt"
    main(["fit", f"--ckpt_path={part}", f"--run_dir={tmp_path / 'go'}"])
    assert_same_run(whole, tmp_path / "go" / "checkpoints" / "last.ckpt")


def test_printed_config_is_complete(
    road: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["test", f"--ckpt_path={road['omiad']}", "--print_config"])
    assert exit_info.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["root"] == str(road["data"])
    assert config["model"]["class_path"].endswith("OmiADModule")


@pytest.mark.parametrize(
    "flag", [["--config"], ["-c"], []], ids=["--config F", "-c F", "--config=F"]
)
def test_an_option_beats_a_configuration_that_comes_after_it(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = "configs/amdm_folder.yaml", "configs/ablation/small.yaml"
    files = [*flag, first, *flag, second] if flag else [f"--config={first}", f"--config={second}"]
    options = ["--seed_everything", "7", "--data.root=parts"]
    with pytest.raises(SystemExit) as exit_info:
        main(["fit", *options, *files, "--print_config"])
    assert exit_info.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["seed_everything"], config["data"]["feature_size"]) == (7, 16)


def test_an_unknown_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = error_of(["fit", "--config=configs/amdm_folder.yaml", "--data.rot=x"], capsys)
    assert "data.rot" in sentence


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'tset'" in error_of(["tset"], capsys)


def test_a_missing_root_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = f"--run_dir={tmp_path / 'run'}"
    sentence = error_of(["fit", *AMDM, *TINY, "--data.root=no/such/folder", out], capsys)
    assert "no/such/folder" in sentence


def test_a_missing_checkpoint_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No checkpoint at 'gone.ckpt'" in error_of(["test", "--ckpt_path=gone.ckpt"], capsys)


def test_another_programs_checkpoint_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    sentence = error_of(["test", f"--ckpt_path={tmp_path / 'other.ckpt'}"], capsys)
    assert "is not a checkpoint of omiad" in sentence


def test_a_kind_of_model_that_is_not_known_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": {}, "omiad": {"kind": "later"}}, tmp_path / "later.ckpt")
    sentence = error_of(["test", f"--ckpt_path={tmp_path / 'later.ckpt'}"], capsys)
    assert "holds a model of kind 'later', which this version of omiad does not know" in sentence


def test_a_truncated_checkpoint_is_refused(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half.ckpt").write_bytes(road["amdm"].read_bytes()[:5000])
    sentence = error_of(["test", f"--ckpt_path={tmp_path / 'half.ckpt'}"], capsys)
    assert "cannot be read as a checkpoint" in sentence


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_named(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit_amdm(mvtec_root, tmp_path, "--trainer.accelerator=gpu")
    assert "--trainer.accelerator cpu always works" in " ".join(capsys.readouterr().err.split())


def test_a_full_disk_is_one_sentence(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = road["amdm"].read_bytes()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(SystemExit):
            fit_omiad(road["data"], tmp_path, road["amdm"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Nothing that was written before is lost" in capsys.readouterr().err
    assert road["amdm"].read_bytes() == before


def test_a_checkpoint_outlives_the_weights_file(mvtec_root: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_efficientnet.r160_in1k").state_dict(), weights)
    teacher = fit_amdm(mvtec_root, tmp_path, f"--data.weights={weights}")
    weights.unlink()
    assert run_test(teacher, tmp_path / "test_amdm")["mean"]["mad"] is not None
    checkpoint = fit_omiad(mvtec_root, tmp_path, teacher, f"--data.cache_dir={tmp_path / 'cache'}")
    teacher.unlink()
    assert run_test(checkpoint, tmp_path / "test_omiad")["mean"]["mad"] is not None


def test_the_curves_show_the_generator_as_it_stands(road: dict[str, Path]) -> None:
    # One batch of psi alone, then two steps for each batch: 6 steps end within the fourth batch.
    rows = read_table(road["out"] / "omiad" / "metrics.csv")
    assert [float(row["train/generator_steps"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[0]["train/generator_distance"]) == 0
    assert float(rows[-1]["train/generator_distance"]) > 0


def test_a_checkpoint_of_a_module_built_in_python_is_tested_like_any(
    mvtec_root: Path, tmp_path: Path
) -> None:
    data = FeatureDataModule(
        str(mvtec_root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        image_size=32,
        feature_size=8,
        cache_dir=str(tmp_path / "cache"),
    )
    network = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
    scoring = Scoring(pool_size=5)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    module = AMDMModule(network, feature_norm="channel", t_init=500, num_steps=3, scoring=scoring)
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    model = run_test(tmp_path / "python.ckpt", tmp_path / "run")["model"]
    assert model["num_steps"] == 3
    assert model["scoring"]["pool_size"] == 5


def test_a_broken_configuration_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [")
    assert "broken.yaml' is not valid YAML" in error_of(["fit", f"--config={broken}"], capsys)


def test_a_missing_configuration_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.yaml" in error_of(["fit", "--config=gone.yaml"], capsys)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images=no/such"], "No image or folder at 'no/such'"),
        (["--images=configs"], "'configs' holds no image"),
        (["--images=.github/assets", "--device=cuda:99"], "Device 'cuda:99' is not available"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_explained(
    road: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    command = ["predict", f"--ckpt_path={road['omiad']}", f"--output={tmp_path}", *arguments]
    assert sentence in error_of(command, capsys)


def test_predictions_are_not_overwritten(
    road: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(road["data"].rglob("*.png"))
    command = ["predict", f"--ckpt_path={road['omiad']}", f"--images={image}", "--device=cpu"]
    main([*command, f"--output={tmp_path}"])
    before = (tmp_path / "predictions.csv").read_bytes()
    assert "already holds predictions" in error_of([*command, f"--output={tmp_path}"], capsys)
    assert (tmp_path / "predictions.csv").read_bytes() == before


def test_a_demo_without_its_configurations_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = error_of(["demo", f"--configs={tmp_path}", f"--output={tmp_path / 'o'}"], capsys)
    assert "No 'demo_amdm.yaml' in" in sentence


def test_a_demo_is_not_mixed_with_an_earlier_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    assert "holds an earlier demo" in error_of(["demo", f"--output={tmp_path}"], capsys)


@pytest.mark.slow
def test_the_demo_learns(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    main(["demo", f"--output={tmp_path / 'demo'}"])
    figures = json.loads((tmp_path / "demo" / "summary.json").read_text())
    z_score, untrained, learned = figures.values()
    assert z_score["pixel_auroc"] < 0.80
    assert untrained["pixel_auroc"] < 0.75
    assert learned["pixel_auroc"] > 0.90
    assert learned["image_auroc"] > 0.90


def test_a_run_folder_that_holds_a_run_is_refused(
    road: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = f"--run_dir={road['out'] / 'amdm'}"
    sentence = error_of(["test", f"--ckpt_path={road['amdm']}", folder], capsys)
    assert "already holds a run" in sentence


def test_a_test_split_without_defects_ends_with_nulls_and_a_sentence(
    road: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "normals"
    shutil.copytree(road["data"], root)
    for folder in root.glob("*/test/*"):
        if folder.name != "good":
            shutil.rmtree(folder)
    results = run_test(road["omiad"], tmp_path / "run", f"--data.root={root}")
    assert set(results["mean"].values()) == {None}
    assert set(results["n"].values()) == {0}
    assert all("no defect" in note for note in results["notes"].values())


def test_the_installed_command_prints_its_manual() -> None:
    command = Path(sys.executable).with_name("omiad")
    out = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    for name in ("fit", "test", "predict", "demo", "data check", "data synthesize"):
        assert f"\n  {name}" in out
