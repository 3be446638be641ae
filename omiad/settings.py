"""The configuration that `fit` and `test` take from a checkpoint, which may come from anyone.

A checkpoint is data: its settings are those that allowed.py lets through, and of the `config.yaml`
beside it only plain trainer settings are taken.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import yaml  # a dependency of Lightning and jsonargparse, whose files it reads here

from omiad.allowed import MODULES, SOURCES, check_arguments
from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.data import FeatureDataModule
from omiad.errors import InputError
from omiad.names import one_line
from omiad.networks.registry import NETWORKS, trust
from omiad.schema import conform

logger = logging.getLogger(__name__)

LARGEST_CONFIG = 1 << 18
"""Bytes of the largest configuration; larger ones would be parsed for minutes."""


class TrainerSettings(TypedDict, total=False):
    """What a resumed run takes of its config.yaml: plain numbers and known words."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    strategy: Literal["auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true"]
    devices: Literal["auto"] | int | list[int]
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16"] | int | None
    max_epochs: int | None
    min_epochs: int | None
    max_steps: int
    min_steps: int | None
    limit_train_batches: int | float | None
    overfit_batches: int | float
    log_every_n_steps: int | None
    enable_progress_bar: bool | None
    accumulate_grad_batches: int
    deterministic: bool | Literal["warn"] | None
    benchmark: bool | None
    sync_batchnorm: bool
    use_distributed_sampler: bool


class CheckpointSettings(TypedDict, total=False):
    """What a resumed run takes of the section `checkpoint` of its config.yaml."""

    every_n_steps: int


def checkpoint_defaults(command: str, options: Sequence[str]) -> dict[str, Any]:
    """Return a configuration made from the checkpoint that the options name, if they name one.

    Networks of the user's own that the checkpoint names are imported if `--trust`, another option
    or a configuration file of the user names them too.
    """
    if {"-h", "--help"} & {*options}:
        return {}
    parser = argparse.ArgumentParser(f"omiad {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    parser.add_argument("--ckpt_path")
    parser.add_argument("--trust")
    flags = [f"--model.{prefix}{name}" for prefix in ("", "init_args.") for name in SOURCES]
    parser.add_argument(*flags, dest="source")
    given, _ = parser.parse_known_args(options)
    asked: dict[str, Any] = {}
    named = [word.rpartition("=")[2] for word in options]
    for path in map(Path, given.config):
        config = read_config(path) if path.is_file() else None  # the parser reports a missing file
        model = config.get("model") if isinstance(config, dict) else None
        if isinstance(model, dict):
            asked |= model | (model.get("init_args") or {})
            named += _strings(model)
    if given.trust is not None:
        trust(given.trust)
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
        record = read_checkpoint(given.ckpt_path)[CHECKPOINT_KEY]
        holds, network = record["module"], record["detector"]["network"]["class_path"]
        name = str(asked.get("class_path", holds)).rpartition(".")[2]
        if name != holds:
            raise InputError(
                f"{one_line(holds)} wrote '{given.ckpt_path}', but the configuration asks for "
                f"{name}. Leave --config out: the checkpoint knows its model."
            )
        if network in named and network not in NETWORKS:
            trust(network)
        return fit_defaults(given.ckpt_path)
    source = given.source or next(filter(None, map(asked.get, SOURCES)), None)
    return {"data": data_defaults(source)} if isinstance(source, str) else {}


def _strings(value: Any) -> list[str]:
    """Return all strings of a configuration."""
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in _strings(part)]
    return [value] if isinstance(value, str) else []


def read_config(path: Path) -> Any:
    """Return what a configuration file says.

    Raises:
        InputError: If it is no YAML, or has more than `LARGEST_CONFIG` bytes.
    """
    if (size := path.stat().st_size) > LARGEST_CONFIG:
        raise InputError(
            f"'{path}' has {size} bytes, and no configuration has more than {LARGEST_CONFIG}. Give "
            f"the right file."
        )
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = one_line(" ".join(str(error).split())[:300])
        raise InputError(f"'{path}' is not valid YAML: {reason}. Correct the file.") from error


def data_defaults(path: str) -> dict[str, Any]:
    """Return the data settings of a checkpoint; the backbone's weights come from its file."""
    checkpoint = read_checkpoint(path)
    data = checkpoint.get("datamodule_hyper_parameters", {})
    used = checkpoint[CHECKPOINT_KEY]["detector"]["extractor"]
    kept = {n: used.get(n, data[n]) for n in data if n not in ("_instantiator", "seed")}
    check_arguments(FeatureDataModule, kept, where=f"'{path}': data")
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
    if not checkpoint.get("loops"):
        raise InputError(
            f"'{path}' is a model without the state of its training, so no fit can resume it. Give "
            f"the checkpoints/last.ckpt of its run."
        )
    model.pop("_instantiator", None)
    class_path = model.pop("_class_path", f"omiad.modules.{name}")
    if class_path not in MODULES or class_path.rpartition(".")[2] != name:
        raise InputError(
            f"{one_line(str(class_path))[:120]} wrote '{path}', but this version of omiad has no "
            f"such module. Use the version that wrote the checkpoint; a module of your own resumes "
            f"in Python, by trainer.fit(..., ckpt_path=...)."
        )
    if record["code"]:
        raise InputError(
            f"'{path}' was trained with {one_line(' and '.join(record['code']))} given as Python "
            f"objects, which no checkpoint holds. Resume the run in Python: trainer.fit(..., "
            f"ckpt_path=...)."
        )
    model |= {source: path for source in SOURCES if source in model}
    if name == "AMDMModule":  # a module built in Python leaves no configuration of its network
        network = record["detector"]["network"]
        arguments = {k: v for k, v in network["init_args"].items() if k != "channels"}
        model.setdefault("network", {**network, "init_args": arguments})
    check_arguments(MODULES[class_path], model, where=f"'{path}': model")
    return {
        "seed_everything": model.pop("seed", 0),
        "model": {"class_path": class_path, "init_args": model},
        "data": data_defaults(path),
        **run_settings(Path(path).resolve().parent.parent / "config.yaml"),
    }


def run_settings(path: Path) -> dict[str, Any]:
    """Return the plain settings of trainer and checkpoints in a run's config.yaml, if it is there.

    The file travels with its checkpoint, so it may come from anyone: classes, callbacks, plugins
    and all else that could run code are left out, with a warning.
    """
    if not path.is_file() or path.stat().st_size > LARGEST_CONFIG:
        return {}
    run, taken = read_config(path), {}
    for section, kind in (("trainer", TrainerSettings), ("checkpoint", CheckpointSettings)):
        given = run.get(section) if isinstance(run, dict) else None
        given = given if isinstance(given, dict) else {}
        known = {name: given[name] for name in kind.__annotations__ if name in given}
        taken[section] = conform(known, kind, where=f"'{path}': {section}")
        for name, value in given.items():
            if name not in known and value != _DEFAULTS.get(name) and name != "logger":
                logger.warning("%s.%s is not taken from '%s'.", section, one_line(str(name)), path)
    return {section: settings for section, settings in taken.items() if settings}


_DEFAULTS = {
    "num_nodes": 1,
    "fast_dev_run": False,
    "check_val_every_n_epoch": 1,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "inference_mode": True,
    "detect_anomaly": False,
    "barebones": False,
    "reload_dataloaders_every_n_epochs": 0,
    "enable_autolog_hparams": True,
}
"""Settings of the trainer that a resumed run never takes, and their defaults where not None."""
