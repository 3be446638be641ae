"""The command line: a table of commands, each of which is imported when it runs."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

from omiad.version import __version__

MANUAL = """\
omiad - one model for every product, any defect in one denoising step

usage: omiad COMMAND [options]        `omiad COMMAND --help` explains every option

commands
  fit              train stage 1 (AMDM), or stage 2 (OmiAD) from a checkpoint of stage 1
  test             score the test images of a data set: seven metrics, results.json, pictures
  predict          score photographs: predictions.csv, a heat map of each, and a page
  evaluate         score the anomaly maps of any method, without a model
  compare          say which differences between two results.json are real
  report           write a page of runs: metrics, curves, and the worst mistakes in pictures
  data check       look for faults in a data set before it is used
  data holdout     write a validation set of training images and artificial defects
  data synthesize  write a small synthetic data set in the MVTec layout
  cache build      compute the features of a data set before a run needs them
  cache info       list the feature caches
  cache verify     compare the cached features with their checksums
  cache prune      remove the features of images that changed or are gone
  sweep            train and test both stages, and print the results next to the paper's
  table            print a table of the paper (1, 3, 12 to 15) with your own results
  typeset          write results as a table of the paper: LaTeX, Markdown or CSV
  demo             train, distil and test on synthetic data, in a few minutes on a CPU

examples
  omiad fit --config configs/amdm_folder.yaml --data.root my_parts/
  omiad fit --config configs/omiad_folder.yaml --data.root my_parts/ \\
            --model.teacher runs/amdm/version_0/checkpoints/last.ckpt
  omiad test --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt
  omiad predict --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt --images photos/
  omiad fit --ckpt_path runs/amdm/version_0/checkpoints/last.ckpt      (resumes a run)
"""

COMMANDS = {
    "fit": "omiad.commands:fit",
    "test": "omiad.commands:test",
    "predict": "omiad.prediction:predict",
    "evaluate": "omiad.evaluation:evaluate",
    "compare": "omiad.evaluation:compare",
    "report": "omiad.report:report",
    "data check": "omiad.commands:check_data",
    "data holdout": "omiad.data.holdout:hold_out",
    "data synthesize": "omiad.data.layouts.synthetic:synthesize",
    "cache build": "omiad.caching:build_cache",
    "cache info": "omiad.caching:cache_info",
    "cache verify": "omiad.caching:verify_cache",
    "cache prune": "omiad.caching:prune_cache",
    "sweep": "omiad.paper.sweep:sweep",
    "table": "omiad.paper.sweep:table",
    "typeset": "omiad.paper.typeset:typeset",
    "demo": "omiad.demo:demo",
}
"""Module and function of each command."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: The words after `omiad`; by default those of this process.

    Raises:
        SystemExit: With status 2 and one sentence on stderr, if the user can mend what is wrong.
    """
    args = list(sys.argv[1:] if args is None else args)
    words = list(takewhile(lambda word: not word.startswith("-"), args[:2]))
    name = words[0] if words and words[0] in COMMANDS else " ".join(words)
    wants_help = args[len(words) :] in ([], ["-h"], ["--help"])
    if name in COMMANDS:
        from omiad.commands import run  # torch and Lightning take seconds to import

        run(name, args[len(name.split()) :], target=COMMANDS[name])
    elif name in ("", "data", "cache") and wants_help:
        sys.stdout.write(_manual(name))
    elif args == ["--version"]:
        sys.stdout.write(f"omiad {__version__}\n")
    else:
        unknown = name or args[0]
        near = " or ".join(f"'{each}'" for each in get_close_matches(unknown, COMMANDS))
        hint = f"Did you mean {near}?" if near else "`omiad --help` lists the commands."
        sys.stderr.write(f"omiad: error: There is no command '{unknown}'. {hint}\n")
        raise SystemExit(2)


def _manual(group: str) -> str:
    """Return the whole manual, or its lines about the commands that begin with a word."""
    if not group:
        return MANUAL
    lines = [line for line in MANUAL.splitlines() if line.startswith(f"  {group} ")]
    usage = f"usage: omiad {group} COMMAND [options]"
    return "\n".join([usage, "", "commands", *lines, ""])
