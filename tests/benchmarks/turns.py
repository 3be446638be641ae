"""Time of several calls that take turns, so that other work slows all of them alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

WARM_UP = 3


def in_turns(timed: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, float]:
    """Return the median of the processor's milliseconds of each call, after a few to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(WARM_UP + repetitions):
        for name, run in timed.items():
            start = time.process_time()
            run()
            spent[name].append(1000 * (time.process_time() - start))
    return {name: median(values[WARM_UP:]) for name, values in spent.items()}
