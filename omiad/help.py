"""What `omiad fit --help` and `omiad test --help` print: omiad's own options, grouped."""

import inspect
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from textwrap import wrap

import docstring_parser  # a dependency of jsonargparse, which reads the same docstrings

from omiad.callbacks import Evaluation, LastCheckpoint
from omiad.data import FeatureDataModule
from omiad.lightning_cli import FIT_HELP, RUN, TEST_HELP
from omiad.modules import ADDModule, AMDMModule, DecoderModule, DetectionModule, OmiADModule

Options = dict[str, tuple[str, str]]
"""One sentence about each option, and its default, "required" or nothing."""

TRAINER: Options = {
    "trainer.accelerator": ("cpu, gpu, mps, or auto for a GPU if there is one", "auto"),
    "trainer.devices": ("Number of GPUs, or a list of their indices", "auto"),
    "trainer.precision": ("32-true, or bf16-mixed for speed on a GPU", "32-true"),
    "trainer.max_steps": ("Optimiser steps after which training ends", "-1, no limit"),
    "trainer.max_epochs": ("Passes through the training images; -1 is no limit", ""),
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
    """Print omiad's own options of a command, fit or test, in at most 100 lines.

    An option takes two lines as long as there is room. What does not fit is cut before the default.
    """
    width = min(100, max(72, shutil.get_terminal_size((100, 24)).columns))
    text, groups = (FIT_HELP, fit_groups()) if command == "fit" else (TEST_HELP, test_groups())
    lines = [f"usage: omiad {command} [options]", "", *text.splitlines(), ""]
    end = FOOTER.format(command=command).splitlines()
    headings = [wrap(heading, width, subsequent_indent="  ") for heading in groups]
    taken = [lines, end, *headings, *([*options, ""] for options in groups.values())]
    spare = MOST_LINES - sum(map(len, taken))
    for heading, options in zip(headings, groups.values(), strict=True):
        lines += heading
        for name, (meaning, default) in options.items():
            shown = f" [{default}]" if default else ""
            most, cut = 2 if spare > 0 else 1, f" ...{shown}"
            first, *second = wrap(meaning + shown, width - COLUMN, max_lines=most, placeholder=cut)
            spare -= len(second)
            lines.append(f"  --{name}".ljust(COLUMN) + first)
            lines += [" " * COLUMN + line for line in second]
        lines.append("")
    sys.stdout.write("\n".join([*lines, *end, ""]))


def fit_groups() -> dict[str, Options]:
    """Return the options of `omiad fit` by heading; those that models share are explained once."""
    groups = {"Data": options_of(FeatureDataModule, "data.", skip="seed")}
    known: set[str] = set()
    for title, module, skip in (
        ("Model, stage 1", AMDMModule, "seed"),
        ("Model, stage 2", OmiADModule, "seed"),
        ("Model, stage 2 by ADD, with options of stage 2", ADDModule, "teacher"),
        ("Model that draws reconstructions", DecoderModule, "seed"),
    ):
        options = options_of(module, "model.", skip=skip)
        shared = ", ".join(f"--{name}" for name in options if name in known)
        heading = f"{title} (--model omiad.modules.{module.__name__})"
        heading += f"; also, as above, {shared}" if shared else ""
        groups[heading] = {name: options[name] for name in options if name not in known}
        known |= {*options}
    return groups | {"Run": RUN | options_of(LastCheckpoint, "checkpoint."), "Trainer": TRAINER}


def test_groups() -> dict[str, Options]:
    """Return the options of `omiad test` by heading; most defaults come from the checkpoint."""
    model = options_of(DetectionModule.load, "model.", skip="ckpt_path")
    data = options_of(FeatureDataModule, "data.")
    of_a_test = [f"data.{name}" for name in ("root", "layout", "cache", "cache_dir", "num_workers")]
    return {
        "Run": RUN,
        "Evaluation": options_of(Evaluation),
        "Model, by default as it was trained": {name: (model[name][0], "") for name in model},
        "Data, by default those of the training": {name: (data[name][0], "") for name in of_a_test},
        "Trainer": {name: TRAINER[name] for name in TRAINER if "max" not in name},
    }


def options_of(function: Callable[..., object], prefix: str = "", *, skip: str = "") -> Options:
    """Return the options that a function's parameters make, explained by its docstring."""
    options: Options = {}
    explained = meanings(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in explained or name == skip or parameter.kind is parameter.VAR_KEYWORD:
            continue
        default = parameter.default
        meaning = re.split(r";\s|\.\s(?=[A-Z])|\.$", explained[name], maxsplit=1)[0]
        if is_dataclass(default):  # each of its fields is an option
            options[f"{prefix}{name}.NAME"] = (f"{meaning}: {', '.join(vars(default))}", "")
        elif default is None or default is parameter.empty:
            options[prefix + name] = (meaning, "" if default is None else "required")
        else:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            options[prefix + name] = (meaning, getattr(default, "__name__", shown))
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
