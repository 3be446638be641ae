"""One checkpoint file that is always whole: written next to the last one, then renamed."""

import logging
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from omiad.modules import TrainingModule

logger = logging.getLogger(__name__)


class LastCheckpoint(Callback):
    """Keep `checkpoints/last.ckpt` in the run folder up to date.

    The checkpoint is written every few steps, at the end, and when a run is interrupted. Only a
    complete file replaces the previous one, which a full disk or a kill leaves intact.

    Args:
        every_n_steps: Optimiser steps between two writes; 0 writes at the end only.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        self.every_n_steps = every_n_steps
        self._last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where a resumed run stands."""
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Write the checkpoint when enough steps have passed."""
        if self.every_n_steps and trainer.global_step - self._last_step >= self.every_n_steps:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate the detector, and write the final checkpoint."""
        if trainer.is_global_zero:
            cast(TrainingModule, pl_module).calibrate()
        logger.info("checkpoint: %s", self.save(trainer))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write a checkpoint when a person or a scheduler stops the run."""
        stopped = isinstance(exception, (KeyboardInterrupt, SIGTERMException))
        if stopped and trainer.training and trainer.global_step > self._last_step:
            path = self.save(trainer)
            logger.warning("Interrupted. Resume with: omiad fit --ckpt_path %s", path)

    def save(self, trainer: Trainer) -> Path:
        """Write the checkpoint and return its path."""
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        path, part = folder / "last.ckpt", folder / "last.ckpt.part"
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                part.replace(path)
        finally:
            if trainer.is_global_zero:
                part.unlink(missing_ok=True)
        self._last_step = trainer.global_step
        return path
