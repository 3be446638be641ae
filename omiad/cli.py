"""The command line: a table of commands; a command is imported when it runs."""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Literal, NamedTuple

from omiad.version import __version__


class Command(NamedTuple):
    """What `omiad NAME` runs.

    Attributes:
        target: The function, as "module:function". Its parameters are the command's options.
        summary: One line for the list of commands.
        style: "positional" takes parameters without a default by their position, and "parser" is
            a function that parses the command line itself.
    """

    target: str
    summary: str
    style: Literal["options", "positional", "parser"] = "options"


COMMANDS = {
    "fit": Command(
        "omiad.commands:fit",
        "train stage 1 (AMDM), or stage 2 (OmiAD) from a checkpoint of stage 1",
        "parser",
    ),
    "test": Command(
        "omiad.commands:test",
        "score the test images of a data set: seven metrics, results.json, pictures",
        "parser",
    ),
    "predict": Command(
        "omiad.prediction:predict",
        "score photographs: predictions.csv, a heat map of each, and a page",
    ),
    "evaluate": Command(
        "omiad.evaluation:evaluate", "score the anomaly maps of any method, without a model"
    ),
    "compare": Command(
        "omiad.evaluation:compare", "say which differences between two results.json are real"
    ),
    "report": Command(
        "omiad.report:report", "write a page of runs: metrics, curves, and the worst mistakes"
    ),
    "data check": Command(
        "omiad.commands:check_data", "look for faults in a data set before it is used", "parser"
    ),
    "data holdout": Command(
        "omiad.data.holdout:hold_out",
        "write a validation set of training images and artificial defects",
        "positional",
    ),
    "data synthesize": Command(
        "omiad.data.layouts.synthetic:synthesize",
        "write a small synthetic data set in the MVTec layout",
        "positional",
    ),
    "cache build": Command(
        "omiad.caching:build_cache",
        "compute the features of a data set before a run needs them",
        "parser",
    ),
    "cache info": Command("omiad.caching:cache_info", "list the feature caches"),
    "cache verify": Command(
        "omiad.caching:verify_cache", "compare the cached features with their checksums"
    ),
    "cache prune": Command(
        "omiad.caching:prune_cache", "remove features of images that changed or are gone"
    ),
    "sweep": Command(
        "omiad.sweeps:sweep",
        "train and test both stages, and print the results next to the paper's",
        "positional",
    ),
    "table": Command(
        "omiad.sweeps:table",
        "print a table of the paper (1, 3, 12 to 15) with your own results",
        "positional",
    ),
    "typeset": Command(
        "omiad.typesetting:typeset", "write results as a table of the paper: LaTeX, Markdown or CSV"
    ),
    "demo": Command(
        "omiad.demo:demo", "train, distil and test on synthetic data, in a few minutes on a CPU"
    ),
}

GROUPS = {"data": "prepare a data set", "cache": "look after the cached features"}
"""First words of commands of two words."""

MANUAL = """\
omiad - one model for every product, any defect in one denoising step

usage: omiad COMMAND [options]        `omiad COMMAND --help` explains every option

commands
{commands}

examples
  omiad fit --config configs/amdm_folder.yaml --data.root my_parts/
  omiad fit --config configs/omiad_folder.yaml --data.root my_parts/ \\
            --model.teacher runs/amdm/version_0/checkpoints/last.ckpt
  omiad test --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt
  omiad predict --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt --images photos/
  omiad fit --ckpt_path runs/amdm/version_0/checkpoints/last.ckpt      (resumes a run)
"""

HELP = ("-h", "--help")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: The words after `omiad`; by default those of this process.

    Raises:
        SystemExit: With status 2 and one sentence on stderr, if the user can mend what is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in HELP:
        sys.stdout.write(MANUAL.format(commands=_list_of(COMMANDS)))
        return
    if args[0] == "--version":
        sys.stdout.write(f"omiad {__version__}\n")
        return
    words = list(takewhile(lambda word: not word.startswith("-"), args[:2]))
    name = args[0] if args[0] in COMMANDS else " ".join(words or args[:1])
    if name in GROUPS and (args[1:2] == [] or args[1] in HELP):
        commands = {each: COMMANDS[each] for each in COMMANDS if each.startswith(f"{name} ")}
        sys.stdout.write(
            f"omiad {name} - {GROUPS[name]}\n\nusage: omiad {name} COMMAND [options]\n\ncommands\n"
            f"{_list_of(commands)}\n"
        )
        return
    if name not in COMMANDS:
        near = " or ".join(f"'{each}'" for each in get_close_matches(name, COMMANDS))
        guess = f"Did you mean {near}?" if near else "`omiad --help` lists the commands."
        sys.stderr.write(f"omiad: error: There is no command '{name}'. {guess}\n")
        raise SystemExit(2)
    from omiad.commands import run  # torch and Lightning take seconds

    target, _, style = COMMANDS[name]
    run(name, args[len(name.split()) :], target=target, style=style)


def _list_of(commands: Mapping[str, Command]) -> str:
    return "\n".join(f"  {name:16} {command.summary}" for name, command in commands.items())
