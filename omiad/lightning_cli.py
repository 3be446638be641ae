"""`omiad fit` and `omiad test` on LightningCLI."""

import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here
from lightning import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from omiad import modules
from omiad.callbacks import Evaluation, LastCheckpoint, TrainingCurves
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.data import FeatureDataModule
from omiad.errors import InputError
from omiad.modules import DetectionModule, TrainingModule
from omiad.scoring import Scoring

logger = logging.getLogger(__name__)

SOURCES = ("teacher", "detector")
"""Arguments of a model that name the checkpoint it starts from, whose data settings it takes."""

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
--protocol prepares the maps as `omiad evaluate` prepares the maps that --save_maps writes. The run
folder holds results.json and panels/; `omiad report` makes a page of it.
"""


def detection(
    ckpt_path: str,
    *,
    scoring: Scoring = Scoring(),  # noqa: B008 (frozen)
    t_init: int = 960,
    num_steps: int = 1,
    eta: float = 0.0,
    num_noise_draws: int = 1,
    weights: Literal["averaged", "raw"] = "averaged",
) -> DetectionModule:
    """Load the detector of a checkpoint; by default every setting is the checkpoint's.

    Args:
        ckpt_path: A .ckpt file that `omiad fit` wrote.
        scoring: How a residual becomes an anomaly map and an image score.
        t_init: Step that features are noised to.
        num_steps: DDIM steps from t_init; 1 reconstructs in one step.
        eta: Share of fresh noise in each DDIM step; with eta 1 and num_steps = t_init the sampler
            is the ancestral sampler of eqs. 3 and 4.
        num_noise_draws: Noise maps whose anomaly maps are averaged.
        weights: Score with the averaged weights of the trained network or with the raw ones.
    """
    return DetectionModule.load(
        ckpt_path,
        weights=weights,
        scoring=vars(scoring),
        t_init=t_init,
        num_steps=num_steps,
        eta=eta,
        num_noise_draws=num_noise_draws,
    )


class OmiadCLI(LightningCLI):
    """LightningCLI whose lowest-priority configuration is the checkpoint's."""

    def __init__(self, args: Sequence[str]) -> None:
        self.is_test = args[0] == "test"
        super().__init__(
            detection if self.is_test else TrainingModule,
            FeatureDataModule,
            subclass_mode_model=not self.is_test,
            save_config_callback=SaveConfigCallback,
            # The run folder has been checked before.
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "enable_checkpointing": False,  # LastCheckpoint writes it
                "enable_model_summary": False,  # the modules say what they cost
                "log_every_n_steps": 10,
            },
            seed_everything_default=0,
            parser_kwargs={args[0]: {"description": TEST_HELP if self.is_test else FIT_HELP}},
            args=with_checkpoint_defaults(list(args)),
            auto_configure_optimizers=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override] # Lightning's is static
        """Return the trainer's method to run, and its arguments that are no options."""
        skip = {"model", "datamodule", "weights_only"}
        if self.is_test:
            return {"test": skip | {"dataloaders", "verbose", "ckpt_path"}}
        return {"fit": skip | {"train_dataloaders", "val_dataloaders"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and the options of callbacks; link the one seed to all its users."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of this run; by default a new one under runs/.",
        )
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        if self.is_test:
            parser.add_argument("--ckpt_path", type=str, help="Checkpoint to test.")
            parser.link_arguments("ckpt_path", "model.ckpt_path")
            parser.add_class_arguments(Evaluation, skip={"save_maps"})
            parser.add_argument(
                "--save_maps",
                action="store_true",
                help="Write the anomaly maps too, for `omiad evaluate`.",
            )
        else:
            parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
            parser.link_arguments("seed_everything", "model.init_args.seed", compute_fn=int)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint's configuration was given before parsing."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Give the trainer its run folder, logger and callbacks."""
        command = str(self.subcommand)
        kind = type(self.model).__name__.removesuffix("Module").lower()
        given = self._get(self.config, "run_dir")
        folder = run_folder(given, "test" if self.is_test else kind)
        kwargs["logger"] = [CSVLogger(save_dir=folder, name="", version="")]
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[Callback] = [TrainingCurves()]
        if command == "test":
            names = inspect.signature(Evaluation).parameters
            callbacks = [Evaluation(**{name: self._get(self.config, name) for name in names})]
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
            f"'{folder}' already holds a run. Choose another --run_dir, or leave the option out "
            f"for a new folder; resume the run with --ckpt_path {folder}/checkpoints/last.ckpt."
        )
    return folder


def with_checkpoint_defaults(args: list[str]) -> list[str]:
    """Put the settings of a checkpoint in front of the arguments, as their first configuration.

    Later configurations and flags override earlier ones, so a flag overrides the checkpoint and the
    checkpoint overrides the defaults.

    Raises:
        InputError: If a configuration is not YAML, or asks for another model than the checkpoint
            holds, or a test has no checkpoint.
    """
    command, options = args[0], args[1:]
    models = [_model_of(Path(c)) for c in _values(options, "config", "c")]
    ckpt_path = _last(_values(options, "ckpt_path"))
    if command == "test":
        if ckpt_path is None and not {"-h", "--help"} & set(options):
            raise InputError("`omiad test` needs --ckpt_path, the checkpoint to score with.")
        defaults = test_defaults(ckpt_path) if ckpt_path else {}
    elif ckpt_path is not None:
        asked = _last([str(m["class_path"]) for m in models if "class_path" in m])
        holds = read_checkpoint(ckpt_path)[CHECKPOINT_KEY]["module"]
        if asked is not None and asked.rpartition(".")[2] != holds:
            raise InputError(
                f"'{ckpt_path}' holds an {holds}, but the configuration asks for "
                f"{asked.rpartition('.')[2]}. Leave --config out: the checkpoint knows its model."
            )
        defaults = _run_config(Path(ckpt_path)) or fit_defaults(ckpt_path)
    else:
        in_configs = [m.get("init_args", m).get(name) for m in models for name in SOURCES]
        flags = [f"{prefix}.{name}" for prefix in ("model", "model.init_args") for name in SOURCES]
        source = _last([*(str(path) for path in in_configs if path), *_values(options, *flags)])
        if source is None:
            return args
        defaults = {"data": data_defaults(source)}
    return [command, "--config", yaml.safe_dump(defaults), *options]


def read_config(path: Path) -> Any:
    """Return what a configuration file says.

    Raises:
        InputError: If the file is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"'{path}' is not valid YAML: {reason}. Correct the file.") from error


def _model_of(path: Path) -> dict[str, Any]:
    """Return the model section of a configuration file; the parser reports a missing file."""
    config = read_config(path) if path.is_file() else None
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


def data_defaults(path: str) -> dict[str, Any]:
    """Return the data settings of a checkpoint; the backbone's weights come from its file."""
    data = dict(read_checkpoint(path).get("datamodule_hyper_parameters", {}))
    for name in ("_instantiator", "seed"):
        data.pop(name, None)
    return {**data, "weights": str(path)}


def test_defaults(path: str) -> dict[str, Any]:
    """Return a configuration that tests a checkpoint as its run left it."""
    spec = read_checkpoint(path)[CHECKPOINT_KEY]["detector"]
    names = ("scoring", "t_init", "num_steps", "eta", "num_noise_draws")
    return {
        "seed_everything": spec["seed"],
        "model": {name: spec[name] for name in names},
        "data": data_defaults(path),
    }


def fit_defaults(path: str) -> dict[str, Any]:
    """Return a configuration that resumes the run of a checkpoint outside its run folder.

    Raises:
        InputError: If this version of omiad does not know the module of the checkpoint.
    """
    checkpoint = read_checkpoint(path)
    record, model = checkpoint[CHECKPOINT_KEY], dict(checkpoint.get("hyper_parameters", {}))
    for name in ("_instantiator", "_class_path"):
        model.pop(name, None)
    if record["module"] not in modules.__all__:
        raise InputError(
            f"'{path}' holds an {record['module']}, which this version of omiad does not know. Use "
            f"the version that wrote the checkpoint."
        )
    model |= {name: str(path) for name in SOURCES if name in model}
    spec = record["detector"]
    if record["module"] == "AMDMModule":
        # A module built in Python leaves no configuration of its factories and dataclasses.
        arguments = {k: v for k, v in spec["network"]["init_args"].items() if k != "channels"}
        network = {"class_path": spec["network"]["class_path"], "init_args": arguments}
        model.setdefault("network", network)
        model.setdefault("scoring", spec["scoring"])
    seed = model.pop("seed", 0)
    return {
        "seed_everything": seed,
        "model": {"class_path": f"omiad.modules.{record['module']}", "init_args": model},
        "data": data_defaults(path),
    }


def _run_config(ckpt_path: Path) -> dict[str, Any] | None:
    """Return the configuration of the run that a checkpoint lies in, to resume the run."""
    path = ckpt_path.resolve().parent.parent / "config.yaml"
    if not path.is_file():
        return None
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    for key in ("ckpt_path", "run_dir"):
        config.pop(key, None)
    config["trainer"].pop("logger", None)
    # The checkpoint holds the weights of backbone and teacher; their files may be gone.
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
