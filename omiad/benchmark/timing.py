"""Seconds of a call, and of the parts of a model that the call runs through."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import numpy as np
import torch
from torch import nn

from omiad.devices import idle_time

FEWEST_RUNS, MOST_RUNS = 5, 1000


class Times(TypedDict):
    """Times of repeated runs after a warm-up; with few runs, p95 and p99 are the slowest ones."""

    median_ms: float
    p95_ms: float
    p99_ms: float
    num_runs: int


def summary(seconds: Sequence[float]) -> Times:
    """Return median and percentiles of the seconds of runs."""
    median, p95, p99 = (1000 * np.percentile(seconds, (50, 95, 99))).tolist()
    return {"median_ms": median, "p95_ms": p95, "p99_ms": p99, "num_runs": len(seconds)}


def repeated(run: Callable[[], object], device: torch.device, *, seconds: float) -> list[float]:
    """Return the seconds of each of 5 to 1000 runs, which take so long together, if they can.

    One run before them warms the device up and is not counted.
    """
    run()
    times: list[float] = []
    while len(times) < FEWEST_RUNS or (sum(times) < seconds and len(times) < MOST_RUNS):
        start = idle_time(device)
        run()
        times.append(idle_time(device) - start)
    return times


@contextmanager
def timed(
    model: nn.Module, parts: Mapping[str, str], device: torch.device
) -> Iterator[dict[str, float]]:
    """Add up the seconds that parts of a model take inside a `with` block.

    Args:
        model: The model.
        parts: Names of submodules by the names of the parts; what the model lacks is left out.
        device: The device, which is waited for before and after each part.
    """
    modules = dict(model.named_modules())
    spent: dict[str, float] = defaultdict(float)
    handles = []

    def add(part: str, sign: int) -> Callable[..., None]:
        def hook(*_: object) -> None:
            spent[part] += sign * idle_time(device)

        return hook

    for part, name in parts.items():
        if name in modules:
            handles.append(modules[name].register_forward_pre_hook(add(part, -1)))
            handles.append(modules[name].register_forward_hook(add(part, 1)))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()


def part_seconds(
    run: Callable[[], object], model: nn.Module, parts: Mapping[str, str], device: torch.device
) -> dict[str, float]:
    """Return the median seconds of each part of a run, over as many runs as `FEWEST_RUNS`."""
    runs: list[dict[str, float]] = []
    for _ in range(FEWEST_RUNS):
        with timed(model, parts, device) as spent:
            start = time.perf_counter()
            run()
            whole = time.perf_counter() - start
        runs.append({**spent, "rest": whole - sum(spent.values())})
    return {name: float(np.median([each[name] for each in runs])) for name in runs[0]}
