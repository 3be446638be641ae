"""`omiad fit` and `omiad test` on LightningCLI."""

import argparse
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from omiad import modules
from omiad.callbacks import Evaluation, LastCheckpoint, TrainingCurves
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.data import FeatureDataModule
from omiad.errors import InputError
from omiad.modules import DetectionModule, TrainingModule

logger = logging.getLogger(__name__)

RUN = {
    "config": ("Configuration file, one or more; any option beats it", ""),
    "run_dir": ("Folder of this run", "a new one under runs/"),
    "ckpt_path": ("Checkpoint to test, or to resume a fit from", ""),
    "seed_everything": ("Seed of initial weights, noise and data order", "0"),
}
"""What the options of a run mean, and their defaults."""

SOURCES = ("teacher", "detector")
"""Model arguments that name a checkpoint; the run takes its data settings from there."""

_LOAD = DetectionModule.load  # jsonargparse wants the same object for every parser

FIT_HELP = """\
Train a model on the normal photographs of all categories under --data.root.

Stage 1: --config configs/amdm_folder.yaml. Stage 2: --config configs/omiad_folder.yaml with
--model.teacher, the checkpoint of stage 1. A decoder for the pictures: --config
configs/decoder.yaml with --model.detector, the checkpoint of either stage. The run folder holds
config.yaml, metrics.csv, curves.png and checkpoints/last.ckpt. --trainer.max_steps counts optimiser
steps: one for each batch, two in stage 2 (student, then generator). --ckpt_path resumes a run.
"""

TEST_HELP = """\
Score the test split with a checkpoint; model, data and scoring come from the checkpoint.

A flag overrides the checkpoint, e.g. --data.root for data elsewhere, or --model.num_steps 1.
--protocol chooses how maps and masks are resized and cropped before they are measured. The run
folder holds results.json and panels/; `omiad report` makes a page of it.
"""


class OmiadCLI(LightningCLI):
    """LightningCLI whose lowest-priority configuration is the checkpoint's."""

    def __init__(self, args: Sequence[str]) -> None:
        command, *options = args
        self.is_test = command == "test"
        defaults = checkpoint_defaults(command, options)
        first = ["--config", yaml.safe_dump(defaults)] if defaults else []
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
            parser_kwargs={command: {"description": TEST_HELP if self.is_test else FIT_HELP}},
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
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        if self.is_test:
            parser.add_argument("--ckpt_path", type=str, help=RUN["ckpt_path"][0])
            parser.link_arguments("ckpt_path", "model.ckpt_path")
            parser.add_class_arguments(Evaluation, skip={"save_maps"})
            parser.add_argument("--save_maps", action="store_true", help="Write the anomaly maps.")
        else:
            parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
            parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint's configuration was given before parsing."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer its run folder, logger and callbacks."""
        given = self.config[self.subcommand]
        if self.is_test:
            names = inspect.signature(Evaluation).parameters
            self.trainer_defaults["callbacks"] = Evaluation(**{name: given[name] for name in names})
            kind = "test"
        else:
            self.trainer_defaults["callbacks"] = TrainingCurves()
            kind = type(self.model).__name__.removesuffix("Module").lower()
        kwargs["logger"] = run_logger(given["run_dir"], kind)
        logger.info("run folder: %s", Path(kwargs["logger"].log_dir))
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """List the data before anything is downloaded, so that a missing root is noticed first."""
        self.datamodule.samples("train")

    def before_test(self) -> None:
        """Test all photographs of a folder that the checkpoint was not trained on.

        Training images may be missing, even where the checkpoint was trained.
        """
        data = self.datamodule
        trained = data_defaults(self.config["test"]["ckpt_path"]).get("root", "")
        data.for_test = data.root.resolve() != Path(trained).expanduser().resolve()
        try:
            data.samples("test")
        except InputError:
            data.for_test = True  # the next listing says what else is wrong


def run_logger(run_dir: str | None, kind: str) -> CSVLogger:
    """Return a logger that writes to a new run's folder, by default runs/<kind>/version_<n>."""
    if run_dir is None:
        return CSVLogger("runs", name=kind)
    if any((Path(run_dir) / name).exists() for name in ("config.yaml", "results.json")):
        raise InputError(
            f"'{run_dir}' already holds a run. Choose another --run_dir, or leave the option out "
            f"for a new folder; a fit is resumed with --ckpt_path {run_dir}/checkpoints/last.ckpt."
        )
    return CSVLogger(run_dir, name="", version="")


def checkpoint_defaults(command: str, options: Sequence[str]) -> dict[str, Any]:
    """Return a configuration made from the checkpoint that the options name, if they name one."""
    if {"-h", "--help"} & {*options}:
        return {}
    parser = argparse.ArgumentParser(f"omiad {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    flags = [f"--model.{prefix}{name}" for prefix in ("", "init_args.") for name in SOURCES]
    parser.add_argument(*flags, dest="source")
    given, _ = parser.parse_known_args(options)
    asked: dict[str, Any] = {}
    for path in map(Path, given.config):
        config = read_config(path) if path.is_file() else None  # the parser reports a missing file
        model = config.get("model") if isinstance(config, dict) else None
        if isinstance(model, dict):
            asked |= model | (model.get("init_args") or {})
    if command == "test":
        if "class_path" in asked:
            raise InputError(
                f"`omiad test` takes no configuration of a fit: '{', '.join(given.config)}'. Leave "
                f"--config out: the checkpoint of --ckpt_path knows its settings."
            )
        if given.ckpt_path is None:
            raise InputError("`omiad test` needs --ckpt_path, the checkpoint to score with.")
        return test_defaults(given.ckpt_path)
    if given.ckpt_path is not None:
        holds = read_checkpoint(given.ckpt_path)[CHECKPOINT_KEY]["module"]
        name = asked.get("class_path", holds).rpartition(".")[2]
        if name != holds:
            raise InputError(
                f"{holds} wrote '{given.ckpt_path}', but the configuration asks for {name}. "
                f"Leave --config out: the checkpoint knows its model."
            )
        return fit_defaults(given.ckpt_path)
    source = given.source or next(filter(None, map(asked.get, SOURCES)), None)
    return {"data": data_defaults(source)} if source else {}


def read_config(path: Path) -> Any:
    """Return what a configuration file says."""
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"'{path}' is not valid YAML: {reason}. Correct the file.") from error


def data_defaults(path: str) -> dict[str, Any]:
    """Return the data settings of a checkpoint; the backbone's weights come from its file."""
    checkpoint = read_checkpoint(path)
    data = checkpoint.get("datamodule_hyper_parameters", {})
    used = checkpoint[CHECKPOINT_KEY]["detector"]["extractor"]
    kept = {n: used.get(n, data[n]) for n in data if n not in ("_instantiator", "seed")}
    return {**kept, "weights": path}


def test_defaults(path: str) -> dict[str, Any]:
    """Return a configuration that tests a checkpoint as its run left it."""
    spec = read_checkpoint(path)[CHECKPOINT_KEY]["detector"]
    names = ("scoring", "t_init", "num_steps", "eta", "num_noise_draws")
    model = {name: spec[name] for name in names}
    return {"seed_everything": spec["seed"], "model": model, "data": data_defaults(path)}


def fit_defaults(path: str) -> dict[str, Any]:
    """Return a configuration that resumes the run of a checkpoint.

    Weights of backbone and teacher come from the checkpoint, since their own files may be gone. The
    options of the trainer come from the run folder, if the checkpoint still lies in it.
    """
    checkpoint = read_checkpoint(path)
    record, model = checkpoint[CHECKPOINT_KEY], dict(checkpoint.get("hyper_parameters", {}))
    name = record["module"]
    model.pop("_instantiator", None)
    class_path = model.pop("_class_path", f"omiad.modules.{name}")
    if class_path == f"omiad.modules.{name}" and name not in modules.__all__:
        raise InputError(
            f"{name} wrote '{path}', but this version of omiad does not know it. Use the version "
            f"that wrote the checkpoint."
        )
    if record["code"]:
        raise InputError(
            f"'{path}' was trained with {' and '.join(record['code'])} given as Python objects, "
            f"which no checkpoint holds. Resume the run in Python: trainer.fit(..., ckpt_path=...)."
        )
    model |= {source: path for source in SOURCES if source in model}
    if name == "AMDMModule":  # a module built in Python leaves no configuration of its network
        network = record["detector"]["network"]
        arguments = {k: v for k, v in network["init_args"].items() if k != "channels"}
        model.setdefault("network", {**network, "init_args": arguments})
    of_run = Path(path).resolve().parent.parent / "config.yaml"
    run = read_config(of_run) if of_run.is_file() else None
    run = run if isinstance(run, dict) and isinstance(run.get("trainer"), dict) else {"trainer": {}}
    run["trainer"].pop("logger", None)
    return {
        "seed_everything": model.pop("seed", 0),
        "model": {"class_path": class_path, "init_args": model},
        "data": data_defaults(path),
        **{section: run[section] for section in ("trainer", "checkpoint") if section in run},
    }
