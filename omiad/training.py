"""Training and testing from the command line, on LightningCLI."""

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here
from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from omiad.callbacks import Evaluation, LastCheckpoint, TrainingCurves
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.data import FeatureDataModule
from omiad.errors import InputError
from omiad.modules import AMDMModule, DecoderModule, DetectionModule, OmiADModule

logger = logging.getLogger(__name__)

MODULES: dict[str, type[DetectionModule]] = {
    "AMDM": AMDMModule,
    "OmiAD": OmiADModule,
    "image decoder": DecoderModule,
}

SOURCES = ("teacher", "detector")
"""Arguments of a model that name the checkpoint it starts from, whose data is its own."""

FIT_HELP = """\
Train a model on the normal photographs of all categories under --data.root.

Stage 1: --config configs/amdm_folder.yaml; stage 2: --config configs/omiad_folder.yaml with
--model.teacher, the checkpoint of stage 1; a decoder for the pictures: --config
configs/decoder.yaml with --model.detector, either's checkpoint. The run folder holds config.yaml,
metrics.csv, curves.png and checkpoints/last.ckpt. --trainer.max_steps counts optimiser steps: one
for each batch, two in stage 2 (student, then generator). --ckpt_path goes on with a run.
"""

TEST_HELP = """\
Score the test split with a checkpoint; model, data and scoring come from it.

A flag beats the checkpoint, e.g. --data.root for the same data elsewhere or --model.num_steps 1.
Maps are compared by --protocol, as `omiad evaluate` compares the maps that --save_maps writes.
The run folder holds results.json and panels/; `omiad report` makes a page of it.
"""


class OmiadCLI(LightningCLI):
    """LightningCLI whose lowest-priority configuration is the checkpoint's."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            DetectionModule,
            FeatureDataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfigCallback,
            # The run folder has been checked before.
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "enable_checkpointing": False,  # LastCheckpoint writes it
                "enable_model_summary": False,  # the modules say what they cost
                "log_every_n_steps": 10,
            },
            seed_everything_default=0,
            parser_kwargs={"fit": {"description": FIT_HELP}, "test": {"description": TEST_HELP}},
            args=with_checkpoint_defaults(list(args)),
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods that are commands, and their arguments to leave out."""
        skip = {"model", "datamodule", "weights_only"}
        return {
            "fit": skip | {"train_dataloaders", "val_dataloaders"},
            "test": skip | {"dataloaders", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and the callbacks' options; let one seed serve all."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; by default a fresh one under runs/.",
        )
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Add the protocol's options to `test`, named as those of `omiad evaluate`."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "test":
            parser.add_class_arguments(Evaluation, skip={"save_maps"})
            parser.add_argument(
                "--save_maps",
                action="store_true",
                help="Write the anomaly maps too, for `omiad evaluate`.",
            )
        return parser

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint's configuration was given before parsing."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer its run folder, logger and callbacks."""
        command = str(self.subcommand)
        kind = type(self.model).__name__.removesuffix("Module").lower()
        given = self._get(self.config, "run_dir")
        folder = run_folder(given, kind if command == "fit" else command)
        kwargs["logger"] = [CSVLogger(save_dir=folder, name="", version="")]
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = [TrainingCurves()]
        if command == "test":
            names = inspect.signature(Evaluation).parameters
            callbacks.append(Evaluation(**{name: self._get(self.config, name) for name in names}))
        trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
        logger.info("run folder: %s", folder)
        return trainer


def run_folder(given: str | None, name: str) -> Path:
    """Return the folder of a new run.

    Args:
        given: What the user asked for, or None for the next free runs/<name>/version_<n>.
        name: Name of the runs' folder.

    Raises:
        InputError: If the folder already holds a run.
    """
    if given is None:
        parent = Path("runs") / name
        taken = [
            int(path.name.removeprefix("version_"))
            for path in parent.glob("version_*")
            if path.name.removeprefix("version_").isdecimal()
        ]
        return parent / f"version_{max(taken, default=-1) + 1}"
    folder = Path(given)
    if any((folder / name).exists() for name in ("config.yaml", "results.json")):
        raise InputError(
            f"'{folder}' already holds a run. Choose another --run_dir, or leave it out for a "
            f"fresh folder; to go on with a run give --ckpt_path {folder}/checkpoints/last.ckpt."
        )
    return folder


def with_checkpoint_defaults(args: list[str]) -> list[str]:
    """Put what a checkpoint knows in front of the arguments, as their first configuration.

    Later configurations and flags beat earlier ones, so a flag beats the checkpoint and the
    checkpoint beats the defaults.

    Raises:
        InputError: If a configuration is not YAML, or asks for another model than the checkpoint
            holds.
    """
    if not args or args[0] not in OmiadCLI.subcommands():
        return args
    command, options = args[0], args[1:]
    models = [_model_of(Path(c)) for c in _values(options, "config", "c")]
    ckpt_path = _last(_values(options, "ckpt_path"))
    if ckpt_path is not None:
        defaults = checkpoint_defaults(ckpt_path)
        asked = _last([str(m["class_path"]) for m in models if "class_path" in m])
        holds = defaults["model"]["class_path"]
        if asked is not None and asked.rpartition(".")[2] != holds.rpartition(".")[2]:
            raise InputError(
                f"'{ckpt_path}' holds an {holds.rpartition('.')[2]}, but the configuration asks "
                f"for {asked.rpartition('.')[2]}. Leave --config out: the checkpoint knows its "
                f"model."
            )
        if command == "fit":
            defaults = _run_config(Path(ckpt_path)) or defaults
    else:
        in_configs = [m.get("init_args", m).get(name) for m in models for name in SOURCES]
        flags = [f"{prefix}.{name}" for prefix in ("model", "model.init_args") for name in SOURCES]
        source = _last([*(str(path) for path in in_configs if path), *_values(options, *flags)])
        if source is None:
            return args
        defaults = {"data": checkpoint_defaults(source)["data"]}
    return [command, "--config", yaml.safe_dump(defaults), *options]


def read_config(path: Path) -> Any:
    """Return what a configuration file says.

    Raises:
        InputError: If it is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"'{path}' is not valid YAML: {reason}. Correct the file.") from error


def _model_of(path: Path) -> dict[str, Any]:
    """Return the model section of a configuration file; the parser says if there is no file."""
    config = read_config(path) if path.is_file() else None
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


def checkpoint_defaults(path: str) -> dict[str, Any]:
    """Return a checkpoint's model and data as a configuration; weights come from its own file.

    Raises:
        InputError: If it holds a kind of model that is unknown here.
    """
    checkpoint = read_checkpoint(path)
    model = dict(checkpoint.get("hyper_parameters", {}))
    data = dict(checkpoint.get("datamodule_hyper_parameters", {}))
    for hyperparameters in (model, data):
        hyperparameters.pop("_instantiator", None)
    kind = checkpoint[CHECKPOINT_KEY]["kind"]
    if kind not in MODULES:
        raise InputError(
            f"'{path}' holds a model of kind '{kind}', which this version of omiad does not know. "
            f"Take the version that wrote it."
        )
    module = MODULES[kind]
    class_path = model.pop("_class_path", f"{module.__module__}.{module.__qualname__}")
    model |= {name: str(path) for name in SOURCES if name in model}
    # A module built in Python leaves no configuration of its factories and dataclasses.
    spec = checkpoint[CHECKPOINT_KEY]["detector"]
    model["scoring"] = model.get("scoring") or spec["scoring"]  # a stage 2 may leave it out
    if module is AMDMModule:
        arguments = {k: v for k, v in spec["network"]["init_args"].items() if k != "channels"}
        network = {"class_path": spec["network"]["class_path"], "init_args": arguments}
        model.setdefault("network", network)
    seed = model.pop("seed", 0)
    data.pop("seed", None)
    data["weights"] = str(path)
    return {
        "seed_everything": seed,
        "model": {"class_path": class_path, "init_args": model},
        "data": data,
    }


def _run_config(ckpt_path: Path) -> dict[str, Any] | None:
    """Return the configuration of the run a checkpoint lies in, to go on with it."""
    path = ckpt_path.resolve().parent.parent / "config.yaml"
    if not path.is_file():
        return None
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    for key in ("ckpt_path", "run_dir", "save_maps", "panels"):  # older runs have the last two
        config.pop(key, None)
    config["trainer"].pop("logger", None)
    # Backbone and teacher weights are in the checkpoint; their files may be gone.
    config["data"]["weights"] = str(ckpt_path)
    arguments = config["model"].get("init_args", {})
    arguments |= {name: str(ckpt_path) for name in SOURCES if name in arguments}
    return config


def _values(options: list[str], *names: str) -> list[str]:
    """Return the values given to an option under any of its names, in order."""
    flags = {f"--{name}" if len(name) > 1 else f"-{name}" for name in names}
    values = []
    for i, option in enumerate(options):
        flag, equals, value = option.partition("=")
        if flag in flags and equals:
            values.append(value)
        elif option in flags and i + 1 < len(options):
            values.append(options[i + 1])
    return values


def _last(values: Sequence[str]) -> str | None:
    return values[-1] if values else None
