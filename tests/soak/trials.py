"""Disturb a command once, look at what it left, go on, and compare with an undisturbed run."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from watched import UNCAUGHT, Ending, Watched
from world import World, run

from soak.jobs import Job
from soak.wholeness import broken

OUT, EVENTS = "out", "events"
LIMIT = 120
"""Seconds after which a command hangs; an undisturbed one takes two."""

RANKS = "--trainer.devices=2 --trainer.strategy=ddp"
GROUP_LIMIT = 60
"""Seconds in which all ranks must have ended after a signal."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed run: its outcome, its seconds, its changes of files, and their bytes."""

    job: Job
    outcome: Any
    seconds: float
    changes: int
    num_bytes: int


def undisturbed(job: Job, world: World, folder: Path) -> Reference:
    """Run a job to its end.

    Raises:
        RuntimeError: If it fails.
    """
    out = _fresh(folder) / OUT
    words = job.words(world, out)
    ending = Watched(partial(_counted, words, None, signal.SIGKILL), folder).ending(LIMIT)
    if ending.status != 0:
        raise RuntimeError(ending.said.decode(errors="replace"))
    size = sum(p.stat().st_blocks * 512 for p in out.rglob("*") if not p.is_symlink())
    changes = len((folder / EVENTS).read_bytes())
    return Reference(job, job.outcome(world, out), ending.seconds, changes, size)


def kill(reference: Reference, world: World, rng: np.random.Generator, folder: Path) -> str | None:
    """Kill a job by SIGKILL, at a random time or before a random change of a file."""
    job, out = reference.job, _fresh(folder) / OUT
    at = int(rng.integers(reference.changes)) if rng.random() < 0.5 else None
    process = Watched(partial(_counted, job.words(world, out), at, signal.SIGKILL), folder)
    if at is None:
        process.wait(float(rng.uniform(0, reference.seconds)))
        process.send(signal.SIGKILL)
    process.ending(LIMIT)
    return _left(reference, world, out) or _gone_on(reference, world, out)


def interrupt(
    reference: Reference, world: World, rng: np.random.Generator, folder: Path
) -> str | None:
    """Interrupt a fit by SIGINT or SIGTERM; it stops by itself, and resumes to the same weights."""
    job, out = reference.job, _fresh(folder) / OUT
    process = Watched(partial(run, job.words(world, out)), folder)
    process.wait(float(rng.uniform(0, reference.seconds)))
    number = signal.SIGINT if rng.random() < 0.5 else signal.SIGTERM
    process.send(number)
    ending = process.ending(LIMIT)
    wrong = _stopped(ending, number) if ending.status != 0 else None
    if ending.status == 0 and job.outcome(world, out) != reference.outcome:
        wrong = f"status 0 after {number.name}"
    return wrong or _left(reference, world, out) or _gone_on(reference, world, out)


def interrupt_ranks(
    reference: Reference, world: World, rng: np.random.Generator, folder: Path
) -> str | None:
    """Interrupt a fit of two processes: all of them end within a minute, and the fit resumes."""
    out = _fresh(folder) / OUT
    words = f"{reference.job.words(world, out)} {RANKS}"
    script = str(Path(sys.executable).with_name("omiad"))
    process = Watched(lambda: os.execv(script, [script, *words.split()]), folder)
    while not (out / "config.yaml").exists() and not process.wait(0.1):
        pass  # both ranks import everything anew, which takes many times as long as the fit
    process.wait(float(rng.uniform(0, 3)) * reference.seconds)
    number = signal.SIGINT if rng.random() < 0.5 else signal.SIGTERM
    process.send(number, to_group=bool(rng.random() < 0.5))
    has_ended = process.wait(GROUP_LIMIT) and _group_ended(process.pid, GROUP_LIMIT)
    ending = process.ending(0 if not has_ended else LIMIT)
    if not has_ended:
        return f"hung after {number.name}"
    if ending.status == 0:
        return None if (out / "checkpoints/last.ckpt").exists() else f"status 0 after {number.name}"
    return _stopped(ending, number) or _left(reference, world, out)


def fill(reference: Reference, world: World, rng: np.random.Generator, folder: Path) -> str | None:
    """Run a job on a disk that is too small; then make the disk larger, and go on."""
    disk = _fresh(folder) / "disk"
    disk.mkdir()
    size = 4096 * int(rng.integers(1, max(2, reference.num_bytes // 4096)))
    _mount(disk, f"size={size}")
    try:
        out = disk / OUT
        words = reference.job.words(world, out)
        ending = Watched(partial(run, words), folder).ending(LIMIT)
        if ending.status != 0:
            wrong = _stopped(ending, None)
            if wrong is None and str(disk) not in _joined(ending):
                wrong = "the message does not name the folder"
            if wrong is None and ending.status != 2:
                wrong = f"status {ending.status}"
        else:
            wrong = None
        wrong = wrong or _left(reference, world, out)
        _mount(disk, "remount,size=200m")
        return wrong or _gone_on(reference, world, out)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def can_mount(folder: Path) -> bool:
    """Return whether this user may mount a small disk."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _mount(folder, "size=64k")
    except (OSError, subprocess.CalledProcessError):
        return False
    subprocess.run(["umount", str(folder)], check=False)
    return True


def _mount(folder: Path, options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _left(reference: Reference, world: World, out: Path) -> str | None:
    """Say what is wrong with the files that a disturbed command left."""
    if not out.exists():
        return None
    if found := broken(out):
        return found[0]
    job = reference.job
    is_done = bool(job.done) and (
        any(out.iterdir()) if job.done == "." else (out / job.done).exists()
    )
    if is_done and not _is_right(job, world, out, reference.outcome):
        return f"{job.done} is there, but not all of the output"
    return None


def _gone_on(reference: Reference, world: World, out: Path) -> str | None:
    """Run the command that goes on, and say how its outcome differs."""
    job = reference.job
    words = (job.again or job.words)(world, out)
    ending = Watched(partial(run, words), out.parent).ending(LIMIT)
    if ending.is_late:
        return "the second run hung"
    is_right = _is_right(job, world, job.result(out), reference.outcome)
    if ending.status not in (0, 2):
        return f"the second run: {_last(ending)}"
    if ending.status == 2 and not (is_right and not job.again):
        return f"the second run is refused: {_last(ending)}"
    return None if is_right else "the second run gives another outcome"


def _is_right(job: Job, world: World, out: Path, right: Any) -> bool:
    try:
        return bool(job.outcome(world, out) == right)
    except Exception:  # a file is missing or cannot be read
        return False


def _stopped(ending: Ending, number: signal.Signals | None) -> str | None:
    """Say what is wrong with how a command ended after a signal or a full disk."""
    after = f" after {number.name}" if number else ""
    if ending.is_late:
        return f"hung{after}"
    if b"Traceback (most recent call last)" in ending.said or ending.status == UNCAUGHT:
        return f"traceback{after}: {_last(ending)}"
    return None


def _last(ending: Ending) -> str:
    lines = ending.said.decode(errors="replace").strip().splitlines()
    return lines[-1][:100] if lines else ""


def _joined(ending: Ending) -> str:
    return " ".join(ending.said.decode(errors="replace").split())


def _group_ended(group: int, seconds: float) -> bool:
    """Wait until no process of a group is alive."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = [stat for stat in _stats() if int(stat[2]) == group and stat[0] != "Z"]
        if not alive:
            return True
        time.sleep(0.2)
    return False


def _stats() -> list[list[str]]:
    """Return state, parent, group and more of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            found.append(path.read_text().rpartition(")")[2].split())
    return found


def _counted(words: str, at: int | None, number: signal.Signals) -> None:
    """Run a command and count its changes of files; with `at`, die before one of them."""
    counter = os.open(EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    done = 0

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        is_write = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
        if is_write or event in ("os.rename", "os.mkdir", "os.remove", "os.symlink", "os.rmdir"):
            if done == at:
                os.kill(os.getpid(), number)
            done += 1
            os.write(counter, b".")

    sys.addaudithook(hook)
    run(words)


TRIALS: dict[str, Callable[..., str | None]] = {
    "SIGKILL": kill,
    "SIGINT, SIGTERM": interrupt,
    "two ranks": interrupt_ranks,
    "full disk": fill,
}
"""Each disturbance by its name in the table."""
