"""`omiad fit` and `omiad test` on LightningCLI."""

import inspect
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import yaml  # a dependency of Lightning and jsonargparse
from lightning import Callback, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, Logger

from omiad.arguments import cropped, refuse_nulls
from omiad.callbacks import (
    Evaluation,
    LastCheckpoint,
    Publication,
    RunProgress,
    TrainingCurves,
)
from omiad.data import FeatureDataModule
from omiad.errors import InputError
from omiad.files import expanded
from omiad.interrupts import stop_requests
from omiad.modules import DetectionModule, TrainingModule
from omiad.run_folder import claimed_folder
from omiad.settings import checkpoint_defaults, data_defaults

logger = logging.getLogger(__name__)

RUN = {
    "config": ("Name or file of a configuration, one or more; any option beats it", ""),
    "run_dir": ("Folder of this run", "a new one under runs/"),
    "ckpt_path": ("Checkpoint to test, or to resume a fit from", ""),
    "trust": ("Class path of your own network, imported if a checkpoint names it", ""),
    "seed_everything": ("Seed of initial weights, noise and data order", "0"),
}
"""What the options of a run mean, and their defaults."""

UNFIT = "Does not validate against any of the Union subtypes"
"""How the message of jsonargparse begins if an argument does not fit the class that it is for."""

_LOAD = DetectionModule.load  # jsonargparse wants the same object for every parser

FIT_HELP = """\
Train a model on the normal photographs of all categories under --data.root.

Stage 1: --config amdm_folder. Stage 2: --config omiad_folder with --model.teacher, the checkpoint
of stage 1. A decoder for the pictures: --config decoder with --model.detector, the checkpoint of
either stage. The run folder holds config.yaml, metrics.csv, curves.png and checkpoints/last.ckpt.
--trainer.max_steps counts optimiser steps: one for each batch, two in stage 2 (student, then
generator). --trainer.logger adds a logger beside metrics.csv. --ckpt_path resumes a run.
"""

TEST_HELP = """\
Score the test split with a checkpoint; model, data and scoring come from the checkpoint.

A flag overrides the checkpoint, e.g. --data.root for data elsewhere, or --model.num_steps 1.
--protocol chooses how maps and masks are resized and cropped before they are measured. The run
folder holds results.json and panels/; `omiad report` makes a page of it.
"""


class OmiadCLI(LightningCLI):
    """LightningCLI whose lowest-priority configuration is the checkpoint's.

    Args:
        args: The command and its options.
        work: What the progress calls the work; by default the command.
    """

    def __init__(self, args: Sequence[str], *, work: str | None = None) -> None:
        command, *options = args
        self._work = work
        self.is_test = command == "test"
        defaults = checkpoint_defaults(command, options)
        first = ["--config", yaml.safe_dump(defaults)] if defaults else []
        with stop_requests, ExitStack() as self._claims:
            super().__init__(
                _LOAD if self.is_test else TrainingModule,
                FeatureDataModule,
                subclass_mode_model=not self.is_test,
                trainer_defaults={
                    "enable_checkpointing": False,  # LastCheckpoint writes it
                    "enable_model_summary": False,  # the modules say what they cost
                    "log_every_n_steps": 10,
                },
                seed_everything_default=0,
                parser_kwargs={
                    "exit_on_error": False,
                    command: {"description": TEST_HELP if self.is_test else FIT_HELP},
                },
                args=[command, *first, *options],
                auto_configure_optimizers=False,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # Lightning's is static
        """Return the trainer's method to run, and its arguments that are no options."""
        skip = {"model", "datamodule", "weights_only", "verbose"}
        skip |= {"dataloaders", "train_dataloaders", "val_dataloaders"}
        return {"test": skip | {"ckpt_path"}} if self.is_test else {"fit": skip}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and the options of callbacks; link the one seed to all its users."""
        parser.add_argument("--run_dir", type=str | None, default=None, help=RUN["run_dir"][0])
        parser.add_argument("--trust", type=str | None, default=None, help=RUN["trust"][0])
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        if self.is_test:
            parser.add_argument("--ckpt_path", type=str, help=RUN["ckpt_path"][0])
            parser.link_arguments("ckpt_path", "model.ckpt_path")
            parser.add_class_arguments(Evaluation, skip={"save_maps"})
            parser.add_argument("--save_maps", action="store_true", help="Write the anomaly maps.")
        else:
            parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
            parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the given words, which need not be those that the process was started with."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint's configuration was given before parsing."""

    def instantiate_classes(self) -> None:
        """Build model, data and trainer; refuse what the parser lets through.

        Raises:
            InputError: If an entry is null that must have a value, or does not fit its class.
        """
        given = self.config[self.subcommand]
        refuse_nulls(FeatureDataModule, given["data"], where="data")
        refuse_nulls(Trainer, given["trainer"], where="trainer")
        if not self.is_test:
            refuse_nulls(LastCheckpoint, given["checkpoint"], where="checkpoint")
        refuse_nulls(OmiadCLI, {"model": given["model"]}, where=str(self.subcommand))
        try:
            super().instantiate_classes()
        except ValueError as error:  # of jsonargparse, which tries every type of an option
            if isinstance(error, InputError):
                raise
            if missing := re.search(r"class_path '[\w.]*\.(\w+Logger)':\s+(.*)", str(error)):
                name, reason = missing.groups()
                raise InputError(f"--trainer.logger {name} cannot be used: {reason}") from error
            if not str(error).startswith(UNFIT):
                raise
            raise InputError(
                f"{cropped(error)}\nCorrect this part of the configuration."
            ) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer its run folder, logger and callbacks."""
        given = self.config[self.subcommand]
        if self.is_test:
            names = inspect.signature(Evaluation).parameters
            callbacks: list[Callback] = [Evaluation(**{name: given[name] for name in names})]
            kind = "test"
        else:
            callbacks = [TrainingCurves()]
            kind = type(self.model).__name__.removesuffix("Module").lower()
        trainer = given["trainer"]
        if trainer["enable_progress_bar"] is not False:
            callbacks.append(RunProgress(self._work))
        others = self._other_loggers()
        if others:
            settings = given.as_dict()
            kept = {name: settings[name] for name in ("seed_everything", "model", "data")}
            callbacks.append(Publication({**kept, "max_steps": trainer["max_steps"]}))
        self.trainer_defaults["callbacks"] = callbacks
        if trainer["barebones"]:
            raise InputError(
                "A run with --trainer.barebones would leave no figures. Leave the option out."
            )
        kwargs["logger"] = False
        if not trainer["fast_dev_run"]:  # a trial that leaves nothing
            own = self._claims.enter_context(run_logger(given["run_dir"], kind))
            kwargs["logger"] = [own, *others]  # the first one's folder is that of the run
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # Lightning: no such strategy or precision
            raise InputError(f"{cropped(error)} Check the --trainer options.") from error

    def _other_loggers(self) -> list[Logger]:
        """Return the loggers that were asked for beside the run's own."""
        asked = self.config_init[self.subcommand]["trainer"]["logger"]
        if asked is False:
            raise InputError(
                "A run always logs to metrics.csv in its folder. Leave --trainer.logger out, or "
                "name a logger that is used beside metrics.csv."
            )
        if asked in (None, True):
            return []
        return [asked] if isinstance(asked, Logger) else list(asked)

    def before_fit(self) -> None:
        """Reject a run that cannot work, or without data, before anything is downloaded."""
        self.model.check_run(self.trainer)
        self.datamodule.samples("train")
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.is_own_command = self._work is None

    def before_test(self) -> None:
        """Test all photographs of a folder that the checkpoint was not trained on.

        Training images may be missing, even where the checkpoint was trained.
        """
        data = self.datamodule
        trained = expanded(data_defaults(self.config["test"]["ckpt_path"]).get("root", ""))
        are_there = data.root.exists() and trained.exists()  # False for what can be no path
        data.for_test = not (are_there and data.root.samefile(trained))
        try:
            data.samples("test")
        except InputError:
            data.for_test = True  # the next listing says what else is wrong


@contextmanager
def run_logger(run_dir: str | None, kind: str) -> Iterator[CSVLogger]:
    """Claim the folder of a new run, by default runs/<kind>/version_<n>, and yield its logger.

    Only the first of several processes claims a folder; Lightning tells the others which.
    """
    if rank_zero_only.rank:  # type: ignore[attr-defined]
        yield CSVLogger("runs", name="", version="")
    else:
        with claimed_folder(run_dir, kind) as folder:
            logger.info("run folder: %s", folder)
            yield CSVLogger(folder, name="", version="")
