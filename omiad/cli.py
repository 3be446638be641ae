"""The command line: `omiad fit`, `test`, `predict`, `evaluate`, `data`, `cache` and more."""

import argparse
import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from rich.console import Console
from rich.logging import RichHandler

from omiad.caching import build_cache, cache_info, prune_cache, verify_cache
from omiad.data.check import check
from omiad.data.holdout import hold_out
from omiad.data.layouts.synthetic import synthesize
from omiad.demo import demo
from omiad.errors import InputError
from omiad.evaluation import compare, evaluate
from omiad.lightning_cli import OmiadCLI
from omiad.prediction import predict
from omiad.report import report
from omiad.sweeps import sweep, table
from omiad.typesetting import typeset

USAGE = """\
omiad - one model for every product, any defect in one denoising step

usage: omiad COMMAND [options]        `omiad COMMAND --help` explains every option

commands
  fit              train: stage 1 (AMDM), or stage 2 (OmiAD) from a stage-1 checkpoint
  test             score the test split of a data set: seven metrics, results.json, pictures
  predict          score photographs: predictions.csv and a heat-map for each
  evaluate         score the anomaly maps of any method, without a model
  compare          say which differences between two results.json are real
  report           a page of one or many runs: figures, curves, and the worst mistakes in pictures
  data check       look for faults in a data set before it is used
  data holdout     write a validation set made of training images and artificial defects
  data synthesize  write a small synthetic data set in the MVTec layout
  cache build      compute the features of a data set before a run needs them
  cache info       list the feature caches; cache verify, cache prune look after them
  sweep            both stages on a data set beside the paper's figures; may be interrupted
  table            a table of the paper (1, 3, 12 to 15) with figures of one's own
  typeset          results in the layout of a table of the paper: LaTeX, Markdown or CSV
  demo             the whole road on synthetic data, in a few minutes on a CPU

examples
  omiad fit --config configs/amdm_folder.yaml --data.root my_parts/
  omiad fit --config configs/omiad_folder.yaml --data.root my_parts/ \\
            --model.teacher runs/amdm/version_0/checkpoints/last.ckpt
  omiad test --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt
  omiad predict --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt --images photos/
  omiad fit --ckpt_path runs/amdm/version_0/checkpoints/last.ckpt      (goes on with a run)
"""


def _run_function(
    function: Callable[..., object],
    name: str,
    *,
    positional: bool = False,
    files: Mapping[str, str] | None = None,
) -> Callable[[Sequence[str]], None]:
    """Make a command of a function: its parameters are the options.

    Args:
        function: What to run.
        name: The command.
        positional: Whether parameters without a default are given without an option's name.
        files: Parameters that take any number of files, and what they are; the first is given
            without an option's name.
    """

    def run(args: Sequence[str]) -> None:
        about = (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
        parser = ArgumentParser(prog=f"omiad {name}", description=about)
        for number, (parameter, meaning) in enumerate((files or {}).items()):
            option = f"--{parameter}" if number else parameter
            parser.add_argument(option, nargs="+", help=meaning)
        skip: set[str | int] = set(files or ())
        parser.add_function_arguments(function, as_positional=positional, skip=skip)
        config: Namespace = parser.parse_args(list(args[len(name.split()) :]))
        function(**vars(parser.instantiate_classes(config)))

    return run


def _check_data(args: Sequence[str]) -> None:
    """Run `check` with the options that a fit has for the same things."""
    about = (inspect.getdoc(check) or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(prog="omiad data check", description=about)
    parser.add_function_arguments(check, "data", as_positional=False, skip={"json"})
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    config: Namespace = parser.parse_args(list(args[2:]))
    if not check(**vars(config.data), json=config.json):
        raise SystemExit(1)


RUNS = "Run folders, or their results.json."

COMMANDS: dict[str, Callable[[Sequence[str]], object]] = {
    "fit": OmiadCLI,
    "test": OmiadCLI,
    "predict": _run_function(predict, "predict"),
    "evaluate": _run_function(evaluate, "evaluate"),
    "compare": _run_function(
        compare,
        "compare",
        files={
            "results": "Two results.json, the second less the first; more with --minus or --seeds.",
            "minus": "The model to subtract, seed by seed, or one run of it; comes last.",
        },
    ),
    "report": _run_function(report, "report", files={"runs": RUNS}),
    "data check": _check_data,
    "data holdout": _run_function(hold_out, "data holdout", positional=True),
    "data synthesize": _run_function(synthesize, "data synthesize", positional=True),
    "cache build": lambda args: build_cache(args[2:]),
    "cache info": _run_function(cache_info, "cache info"),
    "cache verify": _run_function(verify_cache, "cache verify"),
    "cache prune": _run_function(prune_cache, "cache prune"),
    "sweep": _run_function(sweep, "sweep", positional=True),
    "table": _run_function(table, "table", positional=True),
    "typeset": _run_function(typeset, "typeset", files={"results": RUNS}),
    "demo": _run_function(demo, "demo"),
}


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend is one sentence on stderr and exit status 2."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        Console().print(USAGE, markup=False, highlight=False, soft_wrap=True)
        return
    name = args[0] if args[0] in COMMANDS else " ".join(args[:2])
    if name not in COMMANDS:
        parser = argparse.ArgumentParser(prog="omiad", add_help=False)
        parser.error(f"unknown command '{name}'; choose one of {', '.join(COMMANDS)}")
    configure_output()
    command = name.split()
    try:
        COMMANDS[name]([*command, *_configurations_first(args[len(command) :])])
    except InputError as error:
        _fail(str(error))
    except MisconfigurationException as error:  # Lightning: no such device, strategy, precision
        _fail(f"{error} Check the --trainer options; --trainer.accelerator cpu always works.")
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).partition(". ")[0]
        _fail(
            f"The memory ran out ({reason}). Lower --data.batch_size (of `omiad predict` "
            f"--batch_size), --data.image_size or the size of --model.network."
        )
    except OSError as error:  # full disk, no permission
        where = f" ('{error.filename}')" if error.filename else ""
        _fail(f"{error.strerror or error}{where}. Nothing that was written before is lost.")


def _configurations_first(options: Sequence[str]) -> list[str]:
    """Move each --config before the other options, which then beat it wherever they stand."""
    configurations: list[str] = []
    others: list[str] = []
    rest = iter(options)
    for option in rest:
        name, has_value, _ = option.partition("=")
        if name in ("-c", "--config"):
            configurations += [option] if has_value else [option, *islice(rest, 1)]
        else:
            others.append(option)
    return [*configurations, *others]


def _is_out_of_memory(error: Exception) -> bool:
    # Of a GPU's memory torch has an error of its own, of a CPU's none.
    is_one = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_one or "can't allocate memory" in str(error)


def _fail(sentence: str) -> None:
    Console(stderr=True).print(f"omiad: error: {sentence}", markup=False, soft_wrap=True)
    raise SystemExit(2)


def configure_output() -> None:
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
    ".*decompression bomb.*",  # large photographs; Pillow refuses what is too large
    ".*Using `DistributedSampler` with the dataloaders.*",  # ours repeats no image
    ".*args parameter is intended to run from within Python.*",
    ".*in eval mode at the start of training.*",  # frozen on purpose
    ".*LeafSpec.*is deprecated.*",  # Lightning's own call
    ".*JSONARGPARSE_DEPRECATION_WARNINGS.*",  # Lightning's own use
)
