"""The command line: a table of commands, each of which is imported when it runs."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

from omiad.errors import InputError
from omiad.names import printable
from omiad.version import __version__

COMMANDS = {
    "train": (
        "workflow:train",
        "make a model that decides from photographs of good parts",
    ),
    "calibrate": (
        "updating:calibrate",
        "set thresholds anew from fresh normal photographs, without training",
    ),
    "extend": ("updating:extend", "add a product to a model, without training"),
    "fit": ("commands:fit", "train stage 1 (AMDM), or stage 2 (OmiAD) from a stage-1 checkpoint"),
    "test": ("commands:test", "score the test images: seven metrics, results.json, pictures"),
    "predict": (
        "prediction:predict",
        "decide about photographs: a table, heat maps, and a page",
    ),
    "export": ("export:export", "write a model for ONNX Runtime, OpenVINO or torch.export"),
    "serve": ("serving:serve", "answer requests by HTTP with decisions, and show a page"),
    "benchmark": ("benchmark:benchmark", "measure how fast a model is on this machine"),
    "evaluate": ("evaluation:evaluate", "score the anomaly maps of any method, without a model"),
    "compare": ("evaluation:compare", "say which differences between two results.json are real"),
    "report": ("report:report", "write a page of runs: metrics, curves, and the worst mistakes"),
    "data check": ("commands:check_data", "look for faults in a data set before it is used"),
    "data holdout": ("data.holdout:hold_out", "write a validation set with artificial defects"),
    "data synthesize": ("data.layouts.synthetic:synthesize", "write a small synthetic data set"),
    "cache build": ("caching:build_cache", "compute the features of a data set before a run"),
    "cache info": ("caching:cache_info", "list the feature caches"),
    "cache verify": ("caching:verify_cache", "compare the cached features with their checksums"),
    "cache prune": ("caching:prune_cache", "remove features of images that changed or are gone"),
    "sweep": ("paper.sweep:sweep", "train and test both stages, and print the paper's results too"),
    "table": ("paper.sweep:table", "print a table of the paper (1, 3, 12 to 15) with your results"),
    "typeset": ("paper.typeset:typeset", "write results as a table in LaTeX, Markdown or CSV"),
    "demo": ("demo:demo", "train on synthetic photographs and decide, in a few minutes on a CPU"),
}
"""Module and function of each command, and what the command does."""

EXAMPLES = """
examples
  omiad train my_parts/ --out model/
  omiad predict model/model.ckpt photos/
  omiad fit --config amdm_folder --data.root my_parts/ --run_dir amdm
  omiad fit --config omiad_folder --data.root my_parts/ --run_dir omiad \\
            --model.teacher amdm/checkpoints/last.ckpt
  omiad test --ckpt_path omiad/checkpoints/last.ckpt
  omiad fit --ckpt_path amdm/checkpoints/last.ckpt      (resumes a run)
"""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command of `args`, by default the words after `omiad` on the command line.

    An error that the user can fix is one sentence on stderr, and the exit status is 2. A command
    that is interrupted ends with 128 plus the number of the signal, as in a shell.
    """
    try:
        _run(list(sys.argv[1:] if args is None else args))
    except InputError as error:
        message = printable(str(error)).replace("\n", "\n  ")  # no name begins a line of its own
        sys.stderr.write(f"omiad: error: {message}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("omiad: interrupted\n")
        raise SystemExit(130) from None


def _run(args: list[str]) -> None:
    words = list(takewhile(lambda word: not word.startswith("-"), args[:2]))
    name = words[0] if words and words[0] in COMMANDS else " ".join(words)
    if name in COMMANDS:
        from omiad.commands import run  # torch and Lightning take seconds to import

        run(name, args[len(name.split()) :], target=COMMANDS[name][0])
    elif name in ("", "data", "cache") and args[len(words) :] in ([], ["-h"], ["--help"]):
        sys.stdout.write(manual(name))
    elif args == ["--version"]:
        sys.stdout.write(f"omiad {__version__}\n")
    else:
        unknown = name or args[0]
        near = " or ".join(f"'{each}'" for each in get_close_matches(unknown, COMMANDS))
        hint = f"Did you mean {near}?" if near else "`omiad --help` lists the commands."
        raise InputError(f"There is no command '{unknown}'. {hint}")


def manual(group: str = "") -> str:
    """Return the manual, or the part of it about the commands that begin with a word."""
    usage = f"usage: omiad {group} COMMAND [options]".replace("  ", " ")
    text = f"{usage}        `omiad COMMAND --help` explains every option\n\ncommands\n"
    for name, (_, purpose) in COMMANDS.items():
        if name.startswith(group):
            text += f"  {name:16} {purpose}\n"
    title = "omiad - one model for every product, any defect in one denoising step"
    return text if group else f"{title}\n\n{text}{EXAMPLES}"
