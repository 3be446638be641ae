"""A picture of the training curves in the run folder."""

import logging
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from omiad.report import training_curves

logger = logging.getLogger(__name__)


class TrainingCurves(Callback):
    """Draw every logged `train/*` figure at the end of a fit."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write curves.png from the run's metrics.csv."""
        if not (trainer.is_global_zero and isinstance(trainer.logger, CSVLogger)):
            return
        trainer.logger.save()
        folder = Path(trainer.logger.log_dir)
        if not (folder / "metrics.csv").is_file():
            return  # shorter than one logging interval
        training_curves(folder / "metrics.csv", folder / "curves.png", type(pl_module).__name__)
        logger.info("training curves: %s", folder / "curves.png")
