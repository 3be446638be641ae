"""One checkpoint file that is always whole, and runs that stop between two batches."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from omiad.errors import InputError
from omiad.interrupts import Interrupted, stop_requests
from omiad.modules import TrainingModule

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds in which the other processes of a run may end by themselves."""


class LastCheckpoint(Callback):
    """Keep `checkpoints/last.ckpt` in the run folder up to date.

    The checkpoint is written every few steps, at the end, and when SIGINT or SIGTERM asks the run
    to stop. Only a complete file replaces the previous one.

    A resumed run equals an uninterrupted one to the last bit, because a checkpoint is only written
    between two batches: when the next batch is about to start, or when the epoch is over. Then both
    networks of stage 2 have been updated, the row of the last batch is in metrics.csv, and no
    gradient is accumulated. `pause` makes Lightning's counters say so. A signal is noted, and the
    run stops at the next such moment; several processes agree on it after every batch, which
    costs one reduction of a number.

    Args:
        every_n_steps: Optimiser steps between two writes; 0 writes at the end only.

    Attributes:
        is_own_command: Whether `omiad fit` resumes the run. A larger command, which runs the fit as
            one of its steps, says by itself how to go on.
    """

    is_own_command = True

    def __init__(self, every_n_steps: int = 1000) -> None:
        if every_n_steps < 0:
            raise InputError(
                f"--checkpoint.every_n_steps must be at least 0, but got {every_n_steps}. With 0 "
                f"the checkpoint is written at the end only."
            )
        self.every_n_steps = every_n_steps
        self._last_step = 0
        self._path: Path | None = None
        self._is_over = False
        self._receiving = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Receive signals in place of Lightning, whose SIGTERM makes ranks wait for each other."""
        if stage == "fit":
            self._path, self._is_over = None, False
            self._receiving.enter_context(stop_requests)
            trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from where a resumed run stands, and let signals wait for the end of a batch."""
        self._last_step = trainer.global_step
        stop_requests.is_deferred = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save or stop between two batches, but not while gradients are accumulated."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._between_batches(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save or stop between two epochs."""
        self._between_batches(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate the detector, and write the final checkpoint.

        A calibration may take minutes. It is not worth waiting for, so a signal stops it at once.
        """
        self._between_batches(trainer)
        if trainer.global_step > self._last_step:
            self.save(trainer)
        stop_requests.stop_at_once()
        if trainer.is_global_zero:
            cast(TrainingModule, pl_module).calibrate()
        logger.info("checkpoint: %s", self.save(trainer))
        self._is_over = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a run that was interrupted after its last step, for which Lightning does nothing."""
        if not (self._is_over or trainer.fast_dev_run):  # type: ignore[attr-defined]
            logger.warning(
                "Nothing was left to train: the checkpoint stands at step %d. To train on, raise "
                "--trainer.max_steps or --trainer.max_epochs.",
                trainer.global_step,
            )
            pl_module.to(trainer.strategy.root_device)
            self.on_train_end(trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave signals to those who received them before."""
        self._receiving.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say what is kept, and end the processes that would wait for this one."""
        stop_requests.is_deferred = False
        self._receiving.close()
        if trainer.is_global_zero:
            self._say_what_is_kept(trainer, exception)
        _end_others(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Bring Lightning's counters to a pause, if the checkpoint is written between batches."""
        fit_loop = checkpoint["loops"]["fit_loop"]
        batches = fit_loop["epoch_loop.batch_progress"]["total"]
        if batches["processed"] == batches["completed"]:
            pause(fit_loop, int(trainer.num_training_batches))
            checkpoint["epoch"] = fit_loop["epoch_progress"]["current"]["processed"]

    def save(self, trainer: Trainer) -> Path:
        """Write the checkpoint and return its path; a trainer that only tries out writes none."""
        path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints/last.ckpt"
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for each in trainer.loggers:
                each.save()
            trainer.save_checkpoint(path)
            self._path = path
        self._last_step = trainer.global_step
        return path

    def _between_batches(self, trainer: Trainer) -> None:
        """Stop if any process was asked to; otherwise save if enough steps have passed."""
        asked = torch.tensor(stop_requests.number, device=trainer.strategy.root_device)
        number = int(cast(torch.Tensor, trainer.strategy.reduce(asked, reduce_op="max")))
        if number:
            self.save(trainer)
            # A launcher kills the first process if another one fails before it.
            raise Interrupted(number, status=None if trainer.is_global_zero else 0)
        steps = trainer.global_step - self._last_step
        if self.every_n_steps and steps >= self.every_n_steps:
            self.save(trainer)

    def _say_what_is_kept(self, trainer: Trainer, exception: BaseException) -> None:
        step, path = self._last_step, self._path
        if isinstance(exception, Interrupted) and path is None:
            logger.warning(
                "Interrupted before training. Features that were computed are kept; give the same "
                "command again."
            )
        elif isinstance(exception, Interrupted):
            epochs = f"{step}, in epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            progress = f"{step} of {trainer.max_steps}" if trainer.max_steps > 0 else epochs
            advice = f" Resume with: omiad fit --ckpt_path {path}" if self.is_own_command else ""
            logger.warning("Interrupted at step %s.%s", progress, advice)
        elif trainer.training and path is None:
            logger.warning("This run had not written a checkpoint yet.")
        elif trainer.training:
            logger.warning("'%s' is intact: the checkpoint of step %d.", path, step)


def _end_others(trainer: Trainer) -> None:
    """End the processes that this one has started, if they do not end by themselves.

    They may wait for this process, on a GPU for ten minutes. The list is emptied first, because
    Lightning kills this process too when it finds in the list one that has failed.
    """
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        processes = launcher.procs[:]
        launcher.procs.clear()
        end = time.monotonic() + PATIENCE
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            time.sleep(0.1)
        for process in processes:
            process.kill()
            process.wait()


def pause(fit_loop: dict[str, Any], num_batches: int) -> None:
    """Make the state of Lightning's loops that of a pause between two batches or two epochs.

    Lightning writes its own checkpoints inside a batch or inside the end of an epoch, and repairs
    their counters when it resumes; several of these repairs are wrong for a run that is interrupted
    twice. Counters of a pause need no repair: whatever was started is completed.

    Args:
        fit_loop: The loops' state in a checkpoint, which is changed.
        num_batches: Batches in an epoch.
    """
    batches, epochs = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_progress"]
    given, started = batches["current"]["completed"], epochs["total"]["started"]
    is_epoch_over = given >= num_batches or (given == 0 and epochs["total"]["completed"] == started)
    for counter in (batches["total"], batches["current"]):
        counter.update(dict.fromkeys(counter, counter["completed"]))
    for counter in (epochs["total"], epochs["current"]):
        completed = counter["started"] - (0 if is_epoch_over else 1)
        counter.update(ready=counter["started"], processed=completed, completed=completed)
    if is_epoch_over:
        batches["current"].update(dict.fromkeys(batches["current"], 0))
    batches["is_last_batch"] = False
    for loader in fit_loop["state_dict"].get("combined_loader", []):
        position = (started, 0) if is_epoch_over else (started - 1, given)
        loader["epoch"], loader["batches"] = position
