"""The command line from end to end, in process, on a tiny data set in the MVTec layout."""

import csv
import json
import shutil
import signal
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import world
import yaml
from lightning import Trainer
from PIL import Image
from world import AMDM, DATA, QUIET

from omiad import AMDMModule, FeatureDataModule
from omiad.callbacks import LastCheckpoint
from omiad.checkpoint import seal
from omiad.cli import main
from omiad.data.images import read_image
from omiad.detector import Detector
from omiad.diffusion import Masking
from omiad.features import weights_hash
from omiad.metrics import METRICS
from omiad.networks import UNet
from omiad.scoring import Scoring

TRAINER = f"{world.TRAINER} --trainer.max_steps=1"


def last(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def fit(run: Path, options: str) -> Path:
    main(f"fit --run_dir={run} {TRAINER} {options}".split())
    return last(run)


def fit_amdm(root: Path, run: Path, options: str = "") -> Path:
    data = f"{DATA} --data.root={root} --data.cache_dir={run.parent}/cache"
    return fit(run, f"{AMDM} {data} --trainer.max_steps=3 {options}")


def fit_omiad(teacher: Path, run: Path, options: str = "") -> Path:
    model = f"--model=omiad.modules.OmiADModule --model.teacher={teacher} --data.batch_size=4"
    return fit(run, f"{model} --trainer.max_steps=6 {options}")


def run_test(checkpoint: Path, run: Path, options: str = "") -> dict[str, Any]:
    main(f"test --ckpt_path={checkpoint} --run_dir={run} {QUIET} {options}".split())
    return read_json(run / "results.json")


def read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def error_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(command.split())
    assert exit_info.value.code == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def home(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, both stages trained on it, and a test of stage 2.

    The weights of the backbone lay in a file that is gone, as all further runs must do without.
    """
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(mvtec_root, home / "data")
    weights = home / "weights.pth"
    torch.save(timm.create_model("test_efficientnet.r160_in1k").state_dict(), weights)
    teacher = fit_amdm(home / "data", home / "amdm", f"--data.weights={weights}")
    weights.unlink()
    run_test(fit_omiad(teacher, home / "omiad"), home / "tested", "--save_maps")
    return home


@pytest.fixture(scope="module")
def tested(home: Path) -> dict[str, Any]:
    return read_json(home / "tested/results.json")


def test_fit_leaves_config_metrics_curves_and_checkpoint(home: Path) -> None:
    for name in ("config.yaml", "metrics.csv", "curves.png", "checkpoints/last.ckpt"):
        assert (home / "amdm" / name).stat().st_size > 0, name


def test_test_needs_nothing_but_the_checkpoint(home: Path, tested: dict[str, Any]) -> None:
    assert (tested["dataset"], tested["protocol"], tested["seed"]) == ("data", "uniad", 0)
    assert tested["selected_on"] == "last"
    assert tested["model"]["num_steps"] == 1
    assert len(tested["categories"]) == 2
    for figures in (*tested["categories"].values(), tested["mean"]):
        assert set(figures) == {*METRICS, "mad"}
        assert all(0 <= value <= 1 for value in figures.values())
    assert set(tested["n"].values()) == {2}
    assert tested["latency"]["ms_per_image"] > 0
    assert tested["latency"]["batch_size"] == 12
    assert len(list((home / "tested" / "panels").glob("*.png"))) == 2


def test_the_curves_show_the_generator_as_it_stands(home: Path) -> None:
    # One batch of psi alone, then two steps for each batch: 6 steps end within the fourth batch.
    rows = read_table(home / "omiad" / "metrics.csv")
    assert [float(row["train/generator_steps"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[0]["train/generator_distance"]) == 0
    assert float(rows[-1]["train/generator_distance"]) > 0


def test_a_decoder_changes_the_pictures_and_no_figure(
    home: Path, tested: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--config=configs/decoder.yaml --model.detector={last(home / 'omiad')}"
    checkpoint = fit(tmp_path / "decoder", f"{options} --trainer.max_steps=2")
    with_decoder = run_test(checkpoint, tmp_path / "with")
    for key in ("categories", "mean", "n", "further", "bounds"):
        assert with_decoder[key] == tested[key]
    assert with_decoder["model"]["kind"] == tested["model"]["kind"] == "OmiAD"
    for panel in (home / "tested" / "panels").glob("*.png"):
        drawn = tmp_path / "with" / "panels" / panel.name
        with Image.open(panel) as without, Image.open(drawn) as with_reconstruction:
            assert with_reconstruction.width > without.width
    main(["report", str(tmp_path / "with"), f"--out={tmp_path / 'page'}"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count('"reconstruction":"data:image') == 12
    # The run resumes from its checkpoint alone, and the checkpoint is not a teacher.
    fit(tmp_path / "resumed", f"--ckpt_path={checkpoint} --trainer.max_steps=3")
    with pytest.raises(SystemExit):
        fit_omiad(checkpoint, tmp_path / "omiad")
    assert "only an AMDM checkpoint can be distilled" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--protocol=ader --image_size=32 --pool_size=3",
        "--protocol=dinomaly --image_size=32 --estimator=source",
    ],
)
def test_saved_maps_get_the_same_figures_to_the_last_digit(
    home: Path, tested: dict[str, Any], tmp_path: Path, options: str
) -> None:
    run, output = home / "tested", tmp_path / "evaluated.json"
    if options:
        run = tmp_path / "run"
        tested = run_test(last(home / "omiad"), run, f"--save_maps {options}")
    given = f"--maps={run}/maps --data.root={home}/data --output={output}"
    models_own = "--image_size=32 --pool_size=4"  # which `test` takes without a protocol
    main(f"evaluate {given} {options or models_own}".split())
    evaluated = read_json(output)
    shared = {"categories", "mean", "n", "notes", "further", "bounds", "intervals", "protocol"}
    assert shared < tested.keys() == evaluated.keys()
    for key in (*shared, "protocol_steps", "protocol_changes", "estimator", "dataset"):
        assert evaluated[key] == tested[key], key


def test_maps_that_the_model_blurs_are_saved_with_the_image_scores_before_the_blur(
    home: Path, tested: dict[str, Any], tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "evaluated.json"
    blurred = run_test(last(home / "omiad"), run, "--save_maps --model.scoring.blur_sigma=2")
    given = f"--maps={run}/maps --data.root={home}/data --output={output}"
    models_own = f"--image_size=32 --pool_size=4 --scores={run}/scores.csv"
    main(f"evaluate {given} {models_own}".split())
    evaluated = read_json(output)
    assert "sigma 2, after the image score" in blurred["protocol_steps"]["upsampling"]
    assert blurred["protocol_changes"]["pool_size"] == 4  # the model's own
    for category, figures in blurred["categories"].items():
        assert evaluated["categories"][category] == figures
        sharp = tested["categories"][category]
        changed = {key for key in figures if figures[key] != sharp[key]}
        assert changed
        assert not any(key.startswith("image_") for key in changed)
    main(["report", str(run), str(output), f"--out={tmp_path / 'page'}"])
    page = (tmp_path / "page" / "index.html").read_text()
    assert "measured in different ways" not in page
    assert "Gaussian, sigma 2" in page


def test_a_checkpoint_needs_no_other_file_of_its_run(
    home: Path, tested: dict[str, Any], tmp_path: Path
) -> None:
    teacher = Detector.load(last(home / "amdm")).denoiser.network
    alone = shutil.copy(last(home / "omiad"), tmp_path / "alone.ckpt")
    hidden = ("amdm", "omiad", "cache")
    for name in hidden:
        shutil.move(home / name, tmp_path / name)
    try:
        results = run_test(alone, tmp_path / "run")
    finally:
        for name in hidden:
            shutil.move(tmp_path / name, home / name)
    assert results["categories"] == tested["categories"]
    assert results["weights"]["teacher"] == weights_hash(teacher)


def test_an_option_beats_the_checkpoint(home: Path, tmp_path: Path) -> None:
    amdm = last(home / "amdm")
    shutil.copytree(home / "data", tmp_path / "elsewhere")
    before = run_test(amdm, tmp_path / "a")
    assert before["model"]["num_steps"] == 2
    assert before["weights"] == {"model": weights_hash(Detector.load(amdm).denoiser.network)}
    after = run_test(amdm, tmp_path / "b", f"--model.num_steps=1 --data.root={tmp_path}/elsewhere")
    assert (after["model"]["num_steps"], after["dataset"]) == (1, "elsewhere")


def test_all_of_a_test_set_on_its_own_is_scored(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    amdm, alone, bare = last(home / "amdm"), tmp_path / "alone", tmp_path / "bare"
    for number, source in enumerate(sorted(home.glob("data/bottle/*/good/*.png"))):
        (alone / "OK").mkdir(parents=True, exist_ok=True)
        shutil.copy(source, alone / "OK" / f"{number}.png")
    shutil.copytree(home / "data/bottle/test/hole", alone / "hole")
    run_test(amdm, tmp_path / "a", f"--data.root={alone} --save_maps")
    images = [row["image"] for row in read_table(tmp_path / "a/scores.csv")]
    assert Counter(Path(image).parent.name for image in images) == {"OK": 7, "hole": 3}
    shutil.copytree(home / "data", bare)
    for folder in bare.glob("*/train"):
        shutil.rmtree(folder)
    elsewhere = run_test(amdm, tmp_path / "b", f"--data.root={bare}")
    assert elsewhere["categories"] == run_test(amdm, tmp_path / "c")["categories"]
    changed = f"test --ckpt_path={amdm} --run_dir={tmp_path}/d {QUIET} --data.root={bare}"
    assert f"'{bare}' has no training images" in error_of(f"{changed} --model.num_steps=1", capsys)


def test_predict_agrees_with_the_detector_and_names_an_unreadable_photograph(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    omiad = last(home / "omiad")
    images, output = tmp_path / "images", tmp_path / "out"
    shutil.copytree(home / "data", images)
    twin = next(images.glob("*/test/good/*.png"))
    Image.open(twin).save(twin.with_suffix(".bmp"))
    (images / "zz_broken.png").write_bytes(b"no image")
    command = f"predict {omiad} {images} --output={output} --batch_size=3"
    assert "zz_broken.png" in error_of(command, capsys)
    written = (output / "predictions.csv").read_bytes()
    rows = read_table(output / "predictions.csv")
    broken = rows.pop()
    assert (broken["score"], broken["overlay"]) == ("", "")
    assert "zz_broken.png" in broken["error"]
    assert len(rows) == len([*(home / "data").rglob("*.png")]) + 1
    assert len({row["overlay"] for row in rows}) == len(rows)
    assert all((output / row["overlay"]).is_file() for row in rows)
    assert f"All {len(rows)} photographs." in (output / "index.html").read_text()
    image = read_image(Path(rows[5]["image"]), 32)
    score = Detector.load(omiad)(image[None]).score.item()
    assert float(rows[5]["score"]) == pytest.approx(score, rel=1e-4)
    assert f"'{output}' already holds predictions" in error_of(command, capsys)
    assert (output / "predictions.csv").read_bytes() == written


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C once, when that many optimiser steps are done."""
    original = LastCheckpoint.on_train_batch_end

    def on_train_batch_end(self, trainer, *args):  # type: ignore[no-untyped-def]
        original(self, trainer, *args)
        if trainer.global_step == step:
            monkeypatch.undo()
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", on_train_batch_end)


@pytest.mark.parametrize(
    ("stage", "step", "steps"),
    [
        # 8 training images in batches of 4: step 3 lies in the middle of the second epoch.
        ("amdm", 3, 5),
        # One batch of psi alone, then two steps for each batch: 5 steps are 3 batches.
        # `tests/security/test_interrupts.py` resumes stage 2 in every run of the tests.
        pytest.param("omiad", 5, 11, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int, steps: int
) -> None:
    train = fit_amdm if stage == "amdm" else fit_omiad
    source = home / "data" if stage == "amdm" else last(home / "amdm")
    whole = train(source, tmp_path / "whole", f"--trainer.max_steps={steps}")
    interrupt_at(step, monkeypatch)
    with pytest.raises(SystemExit):
        train(source, tmp_path / "part", f"--trainer.max_steps={steps}")
    part, resumed = last(tmp_path / "part"), tmp_path / "resumed"
    main(["fit", f"--ckpt_path={part}", f"--run_dir={resumed}"])
    runs = part, whole, last(resumed)
    interrupted, a, b = (torch.load(path, weights_only=True) for path in runs)
    assert interrupted["global_step"] == step
    assert a["omiad"]["progress"] == b["omiad"]["progress"]
    for name, weights in a["state_dict"].items():
        assert torch.equal(weights, b["state_dict"][name]), name


@pytest.mark.parametrize("flag", ["--config ", "-c ", "--config="])
def test_an_option_beats_a_configuration_that_comes_after_it(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = f"{flag}configs/amdm_folder.yaml {flag}configs/ablation/small.yaml"
    with pytest.raises(SystemExit):
        main(f"fit --seed_everything 7 --data.root=parts {files} --print_config".split())
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["seed_everything"], config["data"]["feature_size"]) == (7, 16)


STAGE_1 = f"fit --run_dir=OUT/run {AMDM} {DATA} {TRAINER}"
STAGE_2 = f"fit --run_dir=OUT/run {TRAINER} --model=omiad.modules.OmiADModule"
TEST = f"test --ckpt_path=OMIAD --run_dir=OUT/run {QUIET}"
ADER = "--protocol=ader --image_size=32"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (f"{STAGE_1} --data.rot=x", "data.rot"),
        # Named before the weights of the backbone are downloaded.
        ("fit --config=configs/amdm_folder.yaml --data.root=no/such --run_dir=OUT", "'no/such'"),
        ("fit --config=gone.yaml", "gone.yaml"),
        ("fit --config=OUT/broken.yaml", "broken.yaml' is not valid YAML"),
        (f"{STAGE_2} --model.teacher=OMIAD", "only an AMDM checkpoint can be distilled"),
        (
            f"{STAGE_2} --model.teacher=AMDM --data.backbone=test_resnet.r160_in1k "
            "--data.weights=random --data.cache_dir=OUT/cache",
            "--data.backbone is test_resnet.r160_in1k",
        ),
        ("test --ckpt_path=gone.ckpt", "No checkpoint at 'gone.ckpt'"),
        ("test --ckpt_path=OUT/other.ckpt", "other.ckpt' is not a checkpoint of omiad"),
        ("test --ckpt_path=OUT/half.ckpt", "half.ckpt' cannot be read as a checkpoint"),
        ("test --ckpt_path=AMDM --run_dir=HOME/amdm", "amdm' already holds a run"),
        ("fit --ckpt_path=AMDM --config=configs/omiad_folder.yaml", "AMDMModule wrote"),
        ("fit --ckpt_path=OUT/later.ckpt", "LaterModule wrote"),
        (f"{TEST} --protocol=ader", "Add --image_size 32"),
        (f"{TEST} --protocol=dinomaly", "392 x 392 pixels cut from 448 x 448"),
        (f"{TEST} --protocol=mine", "'mine'"),
        (f"{TEST} --pool_size=33", "pool_size 33"),
        (f"{TEST} --tolerance=-1", "tolerance"),
        (f"{TEST} {ADER} --model.scoring.blur_sigma=2", "sigma 2"),
        ("test", "--ckpt_path"),
        ("test --config=configs/amdm_folder.yaml", "'configs/amdm_folder.yaml'"),
        ("predict OMIAD no/such --output=OUT", "'no/such'"),
        ("predict OMIAD configs --output=OUT", "'configs' contains no image"),
        ("predict OMIAD HOME/data --batch_size=0", "--batch_size"),
        ("predict OMIAD HOME/data --device=cuda:99", "'cuda:99'"),
        ("demo --output=HOME", "contains an earlier demo"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, named: str
) -> None:
    amdm, omiad = last(home / "amdm"), last(home / "omiad")
    (tmp_path / "broken.yaml").write_text("model: [")
    (tmp_path / "half.ckpt").write_bytes(amdm.read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    later = torch.load(amdm, weights_only=True)
    later["omiad"]["module"] = later["hyper_parameters"]["_class_path"] = "LaterModule"
    seal(later)
    torch.save(later, tmp_path / "later.ckpt")
    for word, path in (("OUT", tmp_path), ("HOME", home), ("AMDM", amdm), ("OMIAD", omiad)):
        command = command.replace(f"={word}", f"={path}").replace(f" {word}", f" {path}")
    assert named in error_of(command, capsys)
    assert not any(tmp_path.rglob("results.json"))


def test_a_job_of_slurm_without_tasks_per_node_is_one_sentence(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    command = f"{STAGE_1} --data.root={home / 'data'}".replace("=OUT", f"={tmp_path}")
    message = error_of(command, capsys)
    assert "--ntasks=2" in message
    assert "Use `--ntasks-per-node=2` instead." in message


def test_a_full_disk_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = last(home / "amdm").read_bytes()
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(SystemExit):
            fit_omiad(last(home / "amdm"), tmp_path / "omiad")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Nothing that was written before is lost" in capsys.readouterr().err
    assert last(home / "amdm").read_bytes() == before


def test_the_checkpoint_of_a_module_built_in_python_is_resumed_and_tested(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FeatureDataModule(
        str(home / "data"),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        image_size=32,
        feature_size=8,
        cache_dir=str(home / "cache"),
    )
    network = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **quiet)
    masking, scoring = Masking(p_max=0.2), Scoring(pool_size=5)
    trainer.fit(AMDMModule(network, num_steps=3, scoring=scoring, masking=masking), datamodule=data)
    trainer.save_checkpoint(tmp_path / "python.ckpt")
    resumed = fit(tmp_path / "run", f"--ckpt_path={tmp_path}/python.ckpt --trainer.max_steps=2")
    for checkpoint, steps in ((tmp_path / "python.ckpt", 1), (resumed, 2)):
        assert torch.load(checkpoint, weights_only=True)["global_step"] == steps
        model = run_test(checkpoint, tmp_path / f"test_{steps}")["model"]
        assert (model["num_steps"], model["scoring"]["pool_size"]) == (3, 5)
        kept = torch.load(checkpoint, weights_only=True)["hyper_parameters"]["masking"]
        assert kept["p_max"] == 0.2
    sgd = partial(torch.optim.SGD, lr=1e-3)
    trainer = Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **quiet)
    trainer.fit(AMDMModule(network, sgd), datamodule=data)
    trainer.save_checkpoint(tmp_path / "sgd.ckpt")
    with pytest.raises(SystemExit):
        main(["fit", f"--ckpt_path={tmp_path}/sgd.ckpt"])
    assert "trained with optimizer given as Python objects" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_learns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(2)
    main(["demo", f"--output={tmp_path / 'demo'}"])
    said = " ".join(capfd.readouterr().out.split())
    assert all(word in said for word in ("defects found", "false alarms", "model/report.html"))
    assert (tmp_path / "demo/model/report.html").is_file()
    z_score, untrained, learned = read_json(tmp_path / "demo" / "summary.json").values()
    assert z_score["pixel_auroc"] < 0.80
    assert untrained["pixel_auroc"] < 0.75
    assert learned["pixel_auroc"] > 0.90
    assert learned["image_auroc"] > 0.90
