"""Run attacks of a kind, one forked process each, and keep the inputs of those that fail."""

import os
import shutil
import time
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from watched import Watched
from world import World

from fuzz.cases import DEPTH, INPUT, OUTPUT, TEMPORARY, Case, verdict
from fuzz.kinds import KINDS


@dataclass
class Tally:
    """How the attacks of a kind ended.

    Attributes:
        tried: Number of attacks.
        accepted: Those that succeeded, with the right values.
        failures: What was wrong, by the number of the attack.
    """

    kind: str
    tried: int = 0
    accepted: int = 0
    seconds: float = 0
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def clean(self) -> int:
        """Number of attacks without a failure."""
        return self.tried - len(self.failures)

    def reasons(self) -> Counter[str]:
        """Count the failures by the first words of what was wrong."""
        return Counter(" ".join(why.split()[:2])[:60] for why in self.failures.values())


def attack(kind: str, world: World, seed: int, number: int, folder: Path) -> tuple[str, Case, int]:
    """Make and run one attack in a folder; return what was wrong, the case and the exit status."""
    inner = folder / DEPTH
    for name in (INPUT, OUTPUT):
        (inner / name).mkdir(parents=True)
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
    case = KINDS[kind](world, rng, inner)
    before = _listing(inner / INPUT)
    may_write = [inner / OUTPUT, inner / TEMPORARY]
    ending = Watched(case.run, inner, may_write=may_write).ending(case.seconds)
    try:
        wrong = verdict(case, ending, inner)
    except Exception as error:  # a file that a success must leave is missing or broken
        wrong = f"check failed: {type(error).__name__}: {error}"
    if wrong is None and _listing(inner / INPUT) != before:
        wrong = "changed its input"
    return wrong or "", case, ending.status


def run(
    kind: str,
    world: World,
    *,
    seed: int,
    numbers: Iterable[int],
    seconds: float | None,
    scratch: Path,
    keep: Path,
) -> Tally:
    """Run attacks of a kind by number until they or the seconds are used up."""
    tally, started = Tally(kind), time.monotonic()
    for number in numbers:
        tally.seconds = time.monotonic() - started
        if seconds is not None and tally.seconds > seconds:
            break
        folder = scratch / f"{kind}-{seed}-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        wrong, case, status = attack(kind, world, seed, number, folder)
        tally.tried += 1
        tally.accepted += not wrong and status == 0
        if wrong:
            tally.failures[number] = wrong
            _keep(folder, keep, case, f"{kind} --seed {seed} --first {number} --number 1", wrong)
        shutil.rmtree(folder, ignore_errors=True)
    tally.seconds = time.monotonic() - started
    return tally


def _keep(folder: Path, keep: Path, case: Case, repeat: str, wrong: str) -> None:
    """Copy a failed attack to a folder with the commands that repeat it."""
    target = keep / folder.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    inner = folder / DEPTH
    with (target / "README.txt").open("w", errors="backslashreplace") as file:
        file.write(f"{wrong}\n\nmake fuzz ARGS='{repeat}'\n\nin this folder: {case.line()}\n")
    for name in (INPUT, OUTPUT):
        # Links stay links, and pipes are left out: opening one would wait for ever.
        shutil.copytree(
            inner / name, target / name, symlinks=True, ignore=_pipes, dirs_exist_ok=True
        )
    for name in ("said.txt", "seen.txt"):
        if (inner / name).exists():
            shutil.copy(inner / name, target / name)


def _pipes(folder: str, names: list[str]) -> list[str]:
    paths = [Path(folder, name) for name in names]
    return [p.name for p in paths if not (p.is_symlink() or p.is_file() or p.is_dir())]


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            stat = os.lstat(os.path.join(where, name))
            size = stat.st_size if name in files else 0
            found.append((os.path.join(where, name), size, stat.st_mode))
    return sorted(found)
