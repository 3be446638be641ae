"""Progress of a fit or a test, in steps or images and the time that is left."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from omiad.progress import Progress


class RunProgress(ProgressBar):
    """Show "stage 1 of 2: step 340 of 1,200, 12 min left", or a line of it every half minute.

    Args:
        what: Name of the work; by default "fit" or "test".
    """

    def __init__(self, what: str | None = None) -> None:
        super().__init__()
        self.what = what
        self._progress: Progress | None = None
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this on all processes but the first."""
        self._is_enabled = False

    def enable(self) -> None:
        """Show progress again."""
        self._is_enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count optimiser steps, or batches of all epochs where no step ends the run."""
        if trainer.max_steps > 0:
            self._open("fit", trainer.max_steps, "step", trainer.global_step)
        else:
            batches = int(trainer.num_training_batches)
            self._open("fit", batches * (trainer.max_epochs or 1), "batch", self._batches(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Show the steps that are done."""
        if self._progress is not None:
            in_steps = trainer.max_steps > 0
            self._progress.update(trainer.global_step if in_steps else self._batches(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count batches of test images."""
        self._open("test", int(sum(trainer.num_test_batches)), "batch", 0)

    def on_test_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *batch: Any) -> None:
        """Show the batches that are done."""
        if self._progress is not None:
            self._progress.update(self._progress.done + 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the terminal as it was, also after an error."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Leave the terminal as it was."""
        self.teardown(trainer, trainer.lightning_module, "exception")

    def _open(self, what: str, total: int, unit: str, done: int) -> None:
        if self._is_enabled:
            self._progress = Progress(self.what or what, total, unit=unit, done=done).start()

    @staticmethod
    def _batches(trainer: Trainer) -> int:
        return int(trainer.fit_loop.epoch_loop.total_batch_idx + 1)
