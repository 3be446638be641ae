"""What a run tells other loggers beside its metrics.csv: settings, pictures and final figures."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import (
    CometLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)

from omiad.photographs import load_image


class Publication(Callback):
    """Send what the run folder holds to the loggers of `--trainer.logger`.

    Losses and diagnostics reach all loggers by themselves. The run's own logger comes first in the
    trainer's list, and is left out here.

    Args:
        settings: The options of the run.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = dict(settings)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Send the settings."""
        for logger in _others(trainer):
            logger.log_hyperparams(self._settings)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the picture of the training curves, which `TrainingCurves` has drawn."""
        _send_pictures(trainer, [_folder(trainer) / "curves.png"])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Send the figures and the panels, which `Evaluation` has written."""
        path = _folder(trainer) / "results.json"
        if trainer.is_global_zero and path.is_file():
            results = json.loads(path.read_text())
            rows = {"mean": results["mean"], **results["categories"]}
            figures = {
                f"test/{row}/{name}": value
                for row, values in rows.items()
                for name, value in values.items()
                if value is not None
            }
            for logger in _others(trainer):
                logger.log_metrics(figures, step=trainer.global_step)
        _send_pictures(trainer, sorted((_folder(trainer) / "panels").glob("*.png")))


def _others(trainer: Trainer) -> list[Logger]:
    """Return the loggers that the user has asked for."""
    return trainer.loggers[1:] if trainer.is_global_zero else []


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir)


def _send_pictures(trainer: Trainer, pictures: Iterable[Path]) -> None:
    """Send pictures to each logger that takes any."""
    step = trainer.global_step
    for path in filter(Path.is_file, pictures):
        name = f"{path.parent.name}/{path.stem}" if path.parent.name == "panels" else path.stem
        for logger in _others(trainer):
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(name, load_image(path), step, dataformats="HWC")
            elif isinstance(logger, WandbLogger):
                logger.log_image(key=name, images=[str(path)], step=step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(path))
            elif isinstance(logger, CometLogger):
                logger.experiment.log_image(str(path), name=name, step=step)
