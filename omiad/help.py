"""What `omiad fit --help` and `omiad test --help` print: omiad's own options, grouped."""

import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from textwrap import wrap
from typing import Any, NamedTuple

import docstring_parser  # a dependency of jsonargparse, which reads the same docstrings

from omiad.callbacks import Evaluation, LastCheckpoint
from omiad.data import FeatureDataModule
from omiad.lightning_cli import FIT_HELP, TEST_HELP, detection
from omiad.modules import ADDModule, AMDMModule, DecoderModule, OmiADModule


class Option(NamedTuple):
    """One sentence about an option, and its default, "required" or nothing."""

    meaning: str
    default: str = ""


class Group(NamedTuple):
    """Options under one heading; `others` are names that an earlier group explains."""

    heading: str
    options: dict[str, Option]
    others: Sequence[str] = ()


RUN = {
    "config": Option("Configuration file, one or more; any option beats it"),
    "run_dir": Option("Folder of this run", "a new one under runs/"),
    "ckpt_path": Option("Checkpoint to test, or to resume a fit from"),
    "seed_everything": Option("Seed of initial weights, noise and data order", "0"),
}
TRAINER = {
    "trainer.accelerator": Option("cpu, gpu, mps, or auto for a GPU if there is one", "auto"),
    "trainer.devices": Option("Number of GPUs, or a list of their indices", "auto"),
    "trainer.precision": Option("32-true, or bf16-mixed for speed on a GPU", "32-true"),
    "trainer.max_steps": Option("Optimiser steps after which training ends", "-1, no limit"),
    "trainer.max_epochs": Option("Passes through the training images; -1 is no limit"),
}
FOOTER = """\
More
  omiad {command} --help_all          every option, most of them Lightning's
  omiad {command} ... --print_config  the whole configuration that the options make
  omiad fit --model.help CLASS  every option of a model, explained in full
"""
MOST_LINES = 100
COLUMN = 37
"""Where the meaning of an option begins on its line."""


def print_help(command: str) -> None:
    """Print omiad's own options of a command, in at most 100 lines.

    Args:
        command: fit or test.
    """
    width = min(100, max(72, shutil.get_terminal_size((100, 24)).columns))
    groups = fit_groups() if command == "fit" else test_groups()
    head = f"usage: omiad {command} [options]\n\n{FIT_HELP if command == 'fit' else TEST_HELP}\n"
    tail = FOOTER.format(command=command)
    room = MOST_LINES - head.count("\n") - tail.count("\n")
    sys.stdout.write(head + "\n".join(_lines(groups, width, room)) + "\n" + tail)


def fit_groups() -> list[Group]:
    """Return the options of `omiad fit`; what several models take is explained once."""
    groups = [Group("Data", options_of(FeatureDataModule, "data.", skip="seed"))]
    known: set[str] = set()
    for heading, module, skip in (
        ("Model, stage 1", AMDMModule, "seed"),
        ("Model, stage 2", OmiADModule, "seed"),
        ("Model, stage 2 by ADD; further options are those of stage 2", ADDModule, "teacher"),
        ("Model that draws reconstructions", DecoderModule, "seed"),
    ):
        options = options_of(module, "model.", skip=skip)
        new = {name: option for name, option in options.items() if name not in known}
        shared = [name for name in options if name in known]
        groups.append(Group(f"{heading} (--model omiad.modules.{module.__name__})", new, shared))
        known |= {*options}
    run = Group("Run", RUN | options_of(LastCheckpoint, "checkpoint."))
    return [*groups, run, Group("Trainer", TRAINER)]


def test_groups() -> list[Group]:
    """Return the options of `omiad test`; the checkpoint has the defaults of model and data."""
    model = options_of(detection, "model.", skip="ckpt_path")
    data = options_of(FeatureDataModule, "data.")
    of_a_test = [f"data.{name}" for name in ("root", "layout", "cache", "cache_dir", "num_workers")]
    return [
        Group("Run", RUN),
        Group("Evaluation", options_of(Evaluation)),
        Group(
            "Model, by default as it was trained",
            {name: option._replace(default="") for name, option in model.items()},
        ),
        Group(
            "Data, by default those of the training",
            {name: data[name]._replace(default="") for name in of_a_test},
        ),
        Group("Trainer", {name: TRAINER[name] for name in TRAINER if "max" not in name}),
    ]


def options_of(
    function: Callable[..., object], prefix: str = "", *, skip: str = ""
) -> dict[str, Option]:
    """Return the options that the parameters of a function or class make.

    Args:
        function: The docstring's `Args:` explain its parameters.
        prefix: What the names of the options begin with.
        skip: A parameter that is no option.
    """
    options = {}
    parameters = inspect.signature(function).parameters
    for name, meaning in meanings(function).items():
        parameter = parameters.get(name)
        if parameter and parameter.kind is not parameter.VAR_KEYWORD and name != skip:
            default = parameter.default
            sentence = re.split(r";\s|\.\s(?=[A-Z])|\.$", meaning, maxsplit=1)[0]
            if is_dataclass(default):  # each of its fields is an option
                fields = ", ".join(vars(default))
                options[f"{prefix}{name}.NAME"] = Option(f"{sentence}: {fields}")
            else:
                options[prefix + name] = Option(sentence, _shown(default))
    return options


def about(function: Callable[..., object]) -> str:
    """Return what a function's docstring says before its `Args:`."""
    return docstring_parser.parse(inspect.getdoc(function) or "").description or ""


def meanings(function: Callable[..., object]) -> dict[str, str]:
    """Return what the docstrings of a function or class, and of a dataclass's bases, explain."""
    sources = inspect.getmro(function)[::-1] if is_dataclass(function) else (function,)
    texts = [docstring_parser.parse(inspect.getdoc(source) or "") for source in sources]
    documented = [each for text in texts for each in text.params]
    return {each.arg_name: " ".join((each.description or "").split()) for each in documented}


def _shown(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "required"
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(getattr(default, "__name__", default))


def _lines(groups: Sequence[Group], width: int, room: int) -> Iterator[str]:
    """Lay groups out in as many lines as there is room for: one or two for an option."""
    others = [_others(group.others, width) for group in groups]
    spare = room - sum(2 + len(o) + len(g.options) for g, o in zip(groups, others, strict=True))
    for group, names in zip(groups, others, strict=True):
        yield group.heading
        for name, option in group.options.items():
            first, *second = _meaning(option, width - COLUMN, most=2 if spare > 0 else 1)
            spare -= len(second)
            yield f"  --{name}".ljust(COLUMN) + first
            yield from (" " * COLUMN + line for line in second)
        yield from [*names, ""]


def _others(names: Sequence[str], width: int) -> list[str]:
    text = "  and " + ", ".join(f"--{name}" for name in names)
    return wrap(text, width, subsequent_indent="      ") if names else []


def _meaning(option: Option, width: int, *, most: int) -> list[str]:
    """Wrap an option's meaning; in too little room its last words go before the default."""
    default = f" [{option.default}]" if option.default else ""
    text, words = wrap(option.meaning + default, width), option.meaning.split()
    while len(text) > most and words:
        words.pop()
        text = wrap(" ".join([*words, "..."]) + default, width)
    return text[:most]
