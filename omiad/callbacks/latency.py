"""How long a model's step takes, measured during a test."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def latency(steps: Sequence[tuple[float, int]]) -> dict[str, Any] | None:
    """Return the median over full batches for results.json, of each step's seconds and images.

    The first step warms the device up. It counts only if it is the only one.
    """
    if not steps:
        return None
    warm = steps[1:] or steps
    size = max(count for _, count in warm)
    seconds = [time / count for time, count in warm if count == size]
    return {
        "ms_per_image": 1000 * float(np.median(seconds)),
        "batch_size": size,
        "num_batches": len(seconds),
        "of": "features to map and score, without reading and backbone",
    }
