"""Run a command: make its options from a function, and turn errors into one sentence."""

import argparse
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pkgutil import resolve_name
from typing import Any, get_type_hints

import torch
from jsonargparse import ArgumentParser
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.logging import RichHandler

from omiad.advice import ignore_advice
from omiad.arguments import check_structure, cropped
from omiad.configurations import find_configuration
from omiad.data.check import check
from omiad.errors import InputError
from omiad.help import about, meanings, print_help
from omiad.interrupts import is_lost_process
from omiad.lightning_cli import OmiadCLI
from omiad.settings import read_config
from omiad.terminal import OneLine, console, escaped_output

OWN_PARSER = ("fit", "test", "data check", "cache build")
"""Commands whose function takes the words of the command line."""

POSITIONAL = (
    *("train", "calibrate", "extend", "predict", "export", "serve", "benchmark"),
    *("data holdout", "data synthesize", "sweep", "table"),
)
"""Commands that take parameters without a default by position, without `--name`."""


def run(name: str, options: Sequence[str], *, target: str) -> None:
    """Run the function of a command; a known error of a library becomes one sentence."""
    function = resolve_name(f"omiad.{target}")
    with escaped_output(), known_errors(name):
        configure_output()
        options = configurations_first(name, options)
        if name in OWN_PARSER:
            function(options)
        else:
            function(**parse(name, function, options))


@contextmanager
def known_errors(command: str) -> Iterator[None]:
    """Turn errors of libraries that mean a fault of the input or of the machine into sentences.

    Args:
        command: The command that runs, for the message.

    Raises:
        InputError: If one of these errors was raised.
    """
    try:
        yield
    except InputError:
        raise
    except argparse.ArgumentError as error:
        raise InputError(
            f"{cropped(error)}\n`omiad {command} --help` explains every option."
        ) from error
    except MisconfigurationException as error:  # Lightning: no such device, strategy, precision
        raise InputError(
            f"{cropped(' '.join(str(error).split()))} Check the --trainer options; "
            f"--trainer.accelerator cpu always works."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if is_lost_process(error):
            raise InputError(
                "Another process of this run ended, and this one cannot go on alone. Read the "
                "message of the other one, and resume from the last checkpoint."
            ) from error
        if "SLURM" in str(error):  # Lightning: the script has --ntasks without --ntasks-per-node
            raise InputError(cropped(" ".join(str(error).split()))) from error
        # torch has an error for a full GPU, and none for a full main memory.
        is_known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not is_known and "can't allocate memory" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise InputError(
            f"The memory ran out ({reason}). Lower --data.batch_size (for `omiad predict` "
            f"--batch_size), --data.image_size or the size of --model.network."
        ) from error
    except OSError as error:  # full disk, no permission
        where = f" ('{error.filename}')" if error.filename else ""
        raise InputError(
            f"{error.strerror or error}{where}. Nothing that was written before is lost."
        ) from error


def configure_output() -> None:
    """Log omiad's own messages plainly; leave out third-party advice that does not apply."""
    root = logging.getLogger("omiad")
    if not root.handlers:
        handler = RichHandler(console=console(), show_time=False, show_path=False, show_level=False)
        handler.setFormatter(OneLine())
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False
    ignore_advice()


def configurations_first(command: str, options: Sequence[str]) -> list[str]:
    """Find each --config and move it before the other options, which beat a configuration."""
    parser = argparse.ArgumentParser(f"omiad {command}", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", action="append", default=[])
    given, others = parser.parse_known_args(options)
    files = [find_configuration(name) for name in given.config]
    for file in files:
        check_structure(read_config(file), where=f"'{file}'")
    return [*(f"--config={file}" for file in files), *others]


def parse(name: str, function: Callable[..., object], options: Sequence[str]) -> dict[str, Any]:
    """Return a function's arguments from options named and explained as its parameters are.

    A parameter of type list[str] takes one word or more, and without `--name` if it has no default;
    one of type tuple[int, ...] takes one number or more.
    A parameter of type bool is turned on by `--name` alone.
    """
    parser = ArgumentParser(prog=f"omiad {name}", description=about(function), exit_on_error=False)
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters
    words: dict[Any, type] = {list[str]: str, list[str] | None: str, tuple[int, ...]: int}
    lists = [each for each in parameters if hints[each] in words]
    flags = [each for each in parameters if hints[each] is bool]
    parser.add_function_arguments(
        function, as_group=False, as_positional=name in POSITIONAL, skip={*lists, *flags}
    )
    for each in flags:
        parser.add_argument(f"--{each}", action="store_true", help=meanings(function)[each])
    for each in lists:
        default, kind, meaning = parameters[each].default, words[hints[each]], meanings(function)
        if default is inspect.Parameter.empty:
            parser.add_argument(each, nargs="+", type=kind, help=meaning[each])
        else:
            own = None if default is None else [*default]  # jsonargparse writes to it
            parser.add_argument(f"--{each}", nargs="+", type=kind, default=own, help=meaning[each])
    return dict(vars(parser.instantiate_classes(parser.parse_args(list(options)))))


def _train_or_test(command: str, options: Sequence[str]) -> None:
    if {"-h", "--help"} & {*options}:
        print_help(command)
    else:
        OmiadCLI([command, *("--help" if each == "--help_all" else each for each in options)])


fit = partial(_train_or_test, "fit")
test = partial(_train_or_test, "test")


def check_data(options: Sequence[str]) -> None:
    """Run `check` with the option names of `omiad fit`; exit with 1 if the data has errors."""
    parser = ArgumentParser(prog="omiad data check", description=about(check), exit_on_error=False)
    parser.add_function_arguments(check, "data", as_group=False, as_positional=False, skip={"json"})
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    config = parser.parse_args(list(options))
    if not check(**vars(config.data), json=config.json):
        raise SystemExit(1)
