"""`--trainer.logger`: other loggers get what a run writes to its folder."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, WandbLogger
from PIL import Image
from world import AMDM, DATA, TRAINER

from omiad.callbacks import Publication
from omiad.cli import main


def events(folder: Path) -> Any:
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed; `pip install omiad[tensorboard]`",
    )
    read = accumulators.EventAccumulator(str(folder))
    read.Reload()
    return read


def test_tensorboard_gets_settings_losses_pictures_and_figures(
    mvtec_root: Path, tmp_path: Path
) -> None:
    pytest.importorskip(
        "tensorboard", reason="tensorboard is not installed; `pip install omiad[tensorboard]`"
    )
    board = f"--trainer.logger=TensorBoardLogger --trainer.logger.save_dir={tmp_path}/board"
    data = f"{DATA} --data.root={mvtec_root} --data.cache_dir={tmp_path}/cache"
    run = tmp_path / "run"
    fit = f"fit --run_dir={run} {TRAINER} {AMDM} {data} --trainer.max_steps=3 {board}"
    main(fit.split())
    with (run / "metrics.csv").open(newline="") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file)]
    first = tmp_path / "board/lightning_logs/version_0"
    read = events(first)
    assert [event.value for event in read.Scalars("train/loss")] == pytest.approx(losses)
    assert read.Tags()["images"] == ["curves"]
    assert "t_init: 500" in (first / "hparams.yaml").read_text()
    checkpoint = run / "checkpoints/last.ckpt"
    assert checkpoint.is_file()
    # The config.yaml beside a checkpoint names the logger, and brings none.
    assert "TensorBoardLogger" in (run / "config.yaml").read_text()
    resume = f"fit --ckpt_path={checkpoint} --run_dir={tmp_path}/more --trainer.max_steps=4"
    main(resume.split())
    assert [path.name for path in first.parent.iterdir()] == ["version_0"]
    main(f"{resume.replace('/more', '/again')} {board}".split())
    assert [e.step for e in events(first.with_name("version_1")).Scalars("train/loss")] == [3]
    test = f"test --ckpt_path={checkpoint} --run_dir={tmp_path}/test --trainer.accelerator=cpu"
    main(f"{test} {board}".split())
    read = events(first.with_name("version_2"))
    assert read.Tags()["images"] == ["panels/bottle", "panels/cable"]
    assert 0 <= read.Scalars("test/mean/image_auroc")[0].value <= 1
    assert {"run", "more", "again", "test"} <= {path.name for path in tmp_path.iterdir()}


def test_each_kind_of_logger_gets_pictures_by_its_own_method(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "curves.png")
    weights, flow, comet = (MagicMock(spec=k) for k in (WandbLogger, MLFlowLogger, CometLogger))
    flow.run_id = "7"
    for logger in (flow, comet):
        logger.experiment = MagicMock()
    trainer = SimpleNamespace(
        loggers=[MagicMock(spec=CSVLogger), weights, flow, comet],
        is_global_zero=True,
        log_dir=str(tmp_path),
        global_step=5,
    )
    publication, picture = Publication({"seed": 0}), str(tmp_path / "curves.png")
    publication.setup(trainer, MagicMock(), "fit")  # type: ignore[arg-type]
    publication.on_train_end(trainer, MagicMock())  # type: ignore[arg-type]
    weights.log_hyperparams.assert_called_once_with({"seed": 0})
    weights.log_image.assert_called_once_with(key="curves", images=[picture], step=5)
    flow.experiment.log_artifact.assert_called_once_with("7", picture)
    comet.experiment.log_image.assert_called_once_with(picture, name="curves", step=5)
    assert not trainer.loggers[0].mock_calls


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--trainer.logger=false", "name a logger that is used beside metrics.csv"),
        ("--trainer.logger=WandbLogger", "wandb"),
    ],
)
def test_a_logger_that_cannot_be_used_is_named(
    mvtec_root: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    option: str,
    named: str,
) -> None:
    run = f"fit --run_dir={tmp_path}/run {TRAINER} {AMDM} {DATA} --data.root={mvtec_root} {option}"
    with pytest.raises(SystemExit) as exit_info:
        main(f"{run} --trainer.max_steps=1".split())
    assert exit_info.value.code == 2
    assert named in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "run").exists()
