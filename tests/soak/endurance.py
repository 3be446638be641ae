"""Predict for a long time, and look whether memory and rate stay flat."""

import mmap
import os
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from watched import Watched
from world import World, run

WARM, GROWTH, SLOWER = 0.25, 64, 0.8
"""Share of the time that warms up, MiB that memory may grow after it, share of the rate kept."""

SIDE = 256


def endure(world: World, folder: Path, *, minutes: float) -> str | None:
    """Score photographs for so many minutes; return what was not flat, or None."""
    shutil.rmtree(folder, ignore_errors=True)
    images = folder / "photographs"
    images.mkdir(parents=True)
    _write(images, 200)
    started = time.monotonic()
    words = f"predict {world.student} {images} --device=cpu --output="
    Watched(partial(run, f"{words}{folder}/short"), folder).ending(600)
    rate = 200 / (time.monotonic() - started)
    count = int(rate * 60 * minutes) + 1
    _write(images, count)
    opened = mmap.mmap(-1, 8)
    process = Watched(partial(_counting, f"{words}{folder}/out", images, opened), folder)
    samples = []
    while not process.wait(1):
        samples.append((time.monotonic(), _memory(process.pid), _count(opened)))
    ending = process.ending()
    sys.stdout.write(f"predict: {count} photographs in {ending.seconds / 60:.1f} minutes\n")
    if ending.status != 0:
        return f"status {ending.status}"
    return flat(samples)


def flat(samples: list[tuple[float, float, int]]) -> str | None:
    """Say whether seconds, MiB and photographs so far show growth or a fall of the rate."""
    warm = samples[int(len(samples) * WARM) :]
    if len(warm) < 8:
        return "too short to say"
    third = len(warm) // 3
    memory = [
        float(np.median([each[1] for each in part])) for part in (warm[:third], warm[-third:])
    ]
    rates = [
        (part[-1][2] - part[0][2]) / (part[-1][0] - part[0][0])
        for part in (warm[:third], warm[-third:])
    ]
    sys.stdout.write(
        f"memory {memory[0]:.0f} -> {memory[1]:.0f} MiB, rate {rates[0]:.1f} -> {rates[1]:.1f}/s\n"
    )
    if memory[1] > memory[0] + GROWTH:
        return f"memory grew by {memory[1] - memory[0]:.0f} MiB"
    return f"the rate fell to {rates[1] / rates[0]:.0%}" if rates[1] < SLOWER * rates[0] else None


def _write(folder: Path, count: int) -> None:
    """Write photographs up to a count; each has its own pixels."""
    rng = np.random.default_rng(count)
    base = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for number in range(len(os.listdir(folder)), count):
        pixels = base.copy()
        pixels[:8, :8] = np.frombuffer(number.to_bytes(3, "little"), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:07}.png", compress_level=1)


def _counting(words: str, images: Path, opened: mmap.mmap) -> None:
    """Run a command and count how often it opens a photograph, where the parent sees it."""
    prefix = str(images)

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and str(args[0]).startswith(prefix):
            opened[:8] = (_count(opened) + 1).to_bytes(8, "little")

    sys.addaudithook(hook)
    run(words)


def _count(opened: mmap.mmap) -> int:
    return int.from_bytes(opened[:8], "little")


def _memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
