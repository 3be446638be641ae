"""Disturb the commands that write something, and print how many trials of each kind failed.

python -m soak                                        all of it, about two hours
python -m soak --only "full disk" --number 20
python -m soak --only predict --minutes 5
"""

import argparse
import gc
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import world
from fuzz import __main__ as _  # noqa: F401 (imports what the commands import)
from world import World

from soak.endurance import endure
from soak.jobs import FITS, JOBS, Job
from soak.trials import TRIALS, can_mount, undisturbed

NUMBERS = {"SIGKILL": 25, "SIGINT, SIGTERM": 40, "two ranks": 12, "full disk": 8}
"""Trials of each job: 200 kills of 8 jobs, 80 signals and 24 pairs of ranks, 56 full disks."""

PREDICT = "predict"
ROW = "{:16} {:14} {:>6} {:>6} {:>7}  {}\n"


def main() -> None:
    """Parse the options, run the trials, print the table; exit with 1 if any failed."""
    parser = argparse.ArgumentParser(
        "soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=[*TRIALS, PREDICT])
    parser.add_argument("--job", action="append", help="names of jobs; all by default")
    parser.add_argument("--number", type=int, help="trials of each job")
    parser.add_argument("--seed", type=int, default=0, help="seed of all moments and sizes")
    parser.add_argument("--minutes", type=float, default=60, help="minutes of predict")
    parser.add_argument("--world", type=Path, help="folder of the data and models to start from")
    given = parser.parse_args()
    torch.set_num_threads(1)
    num_failed = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        folder = Path(scratch)
        small = world.build((given.world or folder / "world").absolute())
        small.load()
        gc.collect()
        gc.freeze()
        sys.stdout.write(ROW.format("kind", "job", "tried", "clean", "failed", ""))
        for kind in given.only or [*TRIALS, PREDICT]:
            if kind == "full disk" and not can_mount(folder / "disk"):
                sys.stdout.write("full disk: skipped, since this user may not mount a tmpfs\n")
            elif kind == PREDICT:
                wrong = endure(small, folder / PREDICT, minutes=given.minutes)
                sys.stdout.write(
                    ROW.format(
                        PREDICT,
                        f"{given.minutes:g} min",
                        1,
                        int(not wrong),
                        int(bool(wrong)),
                        wrong or "",
                    )
                )
                num_failed += wrong is not None
            else:
                for job in _jobs(kind):
                    if not given.job or job.name in given.job:
                        number = given.number or NUMBERS[kind]
                        num_failed += disturb(
                            kind, job, small, folder / "trial", number, given.seed
                        )
            sys.stdout.flush()
    raise SystemExit(num_failed > 0)


def disturb(kind: str, job: Job, small: World, folder: Path, number: int, seed: int) -> int:
    """Run the trials of one job, print their row, and return how many failed."""
    reference = undisturbed(job, small, folder)
    wrong: dict[int, str] = {}
    for trial in range(number):
        rng = np.random.default_rng([seed, zlib.crc32(f"{kind} {job.name}".encode()), trial])
        if found := TRIALS[kind](reference, small, rng, folder):
            wrong[trial] = found
            sys.stderr.write(f"{kind}, {job.name}, trial {trial}: {found}\n")
    reasons = Counter(" ".join(why.split()[:4]) for why in wrong.values()).most_common(4)
    shown = ", ".join(f"{count} {why}" for why, count in reasons)
    sys.stdout.write(ROW.format(kind, job.name, number, number - len(wrong), len(wrong), shown))
    sys.stdout.flush()
    return len(wrong)


def _jobs(kind: str) -> tuple[Job, ...]:
    return {
        "SIGKILL": JOBS,
        "full disk": tuple(job for job in JOBS if job.name != "cache build"),
    }.get(kind, FITS)


if __name__ == "__main__":
    main()
