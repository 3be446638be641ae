"""Attack omiad with seeded inputs, and print how many attacks of each kind failed.

python -m fuzz                                      1,000 attacks of each kind
python -m fuzz images masks --seconds 600           two kinds, ten minutes each
python -m fuzz names --seed 3 --first 17 --number 1     repeat one attack
"""

import argparse
import gc
import itertools
import sys
import tempfile
from pathlib import Path

import torch
import world

# What the commands import when they run; a fork inherits it.
import omiad.caching
import omiad.commands
import omiad.data.holdout
import omiad.evaluation
import omiad.paper.typeset
import omiad.prediction
import omiad.report  # noqa: F401
from fuzz.kinds import KINDS
from fuzz.run import Tally, run

ROW = "{:22} {:>7} {:>9} {:>7} {:>7} {:>9}  {}\n"


def main() -> None:
    """Parse the options, run the attacks, print the table; exit with 1 if any failed."""
    parser = argparse.ArgumentParser(
        "fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help=f"some of {', '.join(KINDS)}; all by default")
    parser.add_argument("--number", type=int, help="attacks of each kind; 1,000 by default")
    parser.add_argument("--seconds", type=float, help="seconds for each kind, instead")
    parser.add_argument("--seed", type=int, default=0, help="seed of all attacks")
    parser.add_argument("--first", type=int, default=0, help="number of the first attack")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="failed inputs")
    parser.add_argument("--world", type=Path, help="folder of the data and models to start from")
    given = parser.parse_args()
    if unknown := [kind for kind in given.kinds if kind not in KINDS]:
        parser.error(f"no kind {', '.join(unknown)}; choose from {', '.join(KINDS)}")
    numbers = itertools.count(given.first)
    if given.seconds is None or given.number is not None:
        stop = given.first + (1000 if given.number is None else given.number)
        numbers = range(given.first, stop)  # type: ignore[assignment]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        small = world.build((given.world or Path(scratch) / "world").absolute())
        small.load()
        gc.collect()
        gc.freeze()  # forks share the pages
        tallies: list[Tally] = []
        sys.stdout.write(ROW.format("kind", "tried", "accepted", "clean", "failed", "seconds", ""))
        for kind in given.kinds or KINDS:
            tally = run(
                kind,
                small,
                seed=given.seed,
                numbers=numbers if isinstance(numbers, range) else itertools.count(given.first),
                seconds=given.seconds,
                scratch=Path(scratch),
                keep=given.keep.absolute(),
            )
            tallies.append(tally)
            sys.stdout.write(_row(tally))
            sys.stdout.flush()
    failed = sum(len(tally.failures) for tally in tallies)
    if failed:
        sys.stdout.write(f"{failed} failed; their inputs: {given.keep}\n")
    raise SystemExit(failed > 0)


def _row(tally: Tally) -> str:
    reasons = ", ".join(f"{count} {why}" for why, count in tally.reasons().most_common(6))
    numbers = (tally.tried, tally.accepted, tally.clean, len(tally.failures))
    return ROW.format(tally.kind, *numbers, f"{tally.seconds:.0f}", reasons)


if __name__ == "__main__":
    main()
