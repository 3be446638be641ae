"""The command line: `omiad fit`, `test`, `predict`, `evaluate`, `compare` and more."""

import argparse
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.logging import RichHandler

from omiad.data.layouts.synthetic import synthesize
from omiad.demo import demo
from omiad.errors import InputError
from omiad.evaluation import compare, evaluate
from omiad.prediction import predict
from omiad.training import OmiadCLI

USAGE = """\
omiad - one model for every product, any defect in one denoising step

usage: omiad COMMAND [options]        `omiad COMMAND --help` explains every option

commands
  fit         train: stage 1 (AMDM), or stage 2 (OmiAD) from a stage-1 checkpoint
  test        score the test split of a data set: seven metrics, results.json, pictures
  predict     score photographs: predictions.csv and a heat-map for each
  evaluate    score the anomaly maps of any method, without a model
  compare     say which differences between two results.json are real
  synthesize  write a small synthetic data set in the MVTec layout
  demo        the whole road on synthetic data, in a few minutes on a CPU

examples
  omiad fit --config configs/amdm_folder.yaml --data.root my_parts/
  omiad fit --config configs/omiad_folder.yaml --data.root my_parts/ \\
            --model.teacher runs/amdm/version_0/checkpoints/last.ckpt
  omiad test --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt
  omiad predict --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt --images photos/
  omiad fit --ckpt_path runs/amdm/version_0/checkpoints/last.ckpt      (goes on with a run)
"""


def _run_function(
    function: Callable[..., object], *, files: str | None = None
) -> Callable[[Sequence[str]], None]:
    """Make a command of a function: its parameters are the options.

    Args:
        function: What to run.
        files: Parameter whose values are given without an option's name.
    """

    def run(args: Sequence[str]) -> None:
        about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        parser = ArgumentParser(prog=f"omiad {args[0]}", description=about)
        if files is not None:
            parser.add_argument(files, nargs="+", help=f"Files {files}.json.")
        skip: set[str | int] = {files} if files else set()
        parser.add_function_arguments(function, as_positional=False, skip=skip)
        config: Namespace = parser.parse_args(list(args[1:]))
        function(**vars(parser.instantiate_classes(config)))

    return run


COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "fit": OmiadCLI,
    "test": OmiadCLI,
    "predict": _run_function(predict),
    "evaluate": _run_function(evaluate),
    "compare": _run_function(compare, files="results"),
    "synthesize": _run_function(synthesize),
    "demo": _run_function(demo),
}


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend is one sentence on stderr and exit status 2."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        Console().print(USAGE, markup=False, highlight=False, soft_wrap=True)
        return
    if args[0] not in COMMANDS:
        parser = argparse.ArgumentParser(prog="omiad", add_help=False)
        parser.error(f"unknown command '{args[0]}'; choose one of {', '.join(COMMANDS)}")
    _configure_output()
    try:
        COMMANDS[args[0]](args)
    except InputError as error:
        _fail(str(error))
    except MisconfigurationException as error:  # Lightning: no such device, strategy, precision
        _fail(f"{error} Check the --trainer options; --trainer.accelerator cpu always works.")
    except OSError as error:  # full disk, no permission
        where = f" ('{error.filename}')" if error.filename else ""
        _fail(f"{error.strerror or error}{where}. Nothing that was written before is lost.")


def _fail(sentence: str) -> None:
    Console(stderr=True).print(f"omiad: error: {sentence}", markup=False, soft_wrap=True)
    raise SystemExit(2)


def _configure_output() -> None:
    """Log omiad's own messages plainly; leave out third-party advice that does not apply."""
    root = logging.getLogger("omiad")
    if not root.handlers:
        root.addHandler(RichHandler(show_time=False, show_path=False, show_level=False))
        root.setLevel(logging.INFO)
        root.propagate = False
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


IGNORED_WARNINGS = (
    ".*does not have many workers.*",  # features come from a memory-mapped file
    ".*is already saved during checkpointing.*",
    ".*args parameter is intended to run from within Python.*",
    ".*in eval mode at the start of training.*",  # frozen on purpose
    ".*LeafSpec.*is deprecated.*",  # Lightning's own call
    ".*JSONARGPARSE_DEPRECATION_WARNINGS.*",  # Lightning's own use
)
