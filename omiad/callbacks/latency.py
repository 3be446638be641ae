"""How long a model's step takes, measured during a test."""

import time
from typing import Any

import numpy as np
import torch


class StepClock:
    """Measures steps, and waits until the device is idle before it reads the time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._steps: list[tuple[float, int]] = []

    def start(self) -> None:
        """Start a step."""
        self._started = self._now()

    def stop(self, num_images: int) -> None:
        """End a step."""
        self._steps.append((self._now() - self._started, num_images))

    def as_record(self) -> dict[str, Any] | None:
        """Return the median over full batches, for results.json; None without a step.

        The first step warms the device up. It counts only if it is the only one.
        """
        if not self._steps:
            return None
        steps = self._steps[1:] or self._steps
        size = max(count for _, count in steps)
        seconds = [time / count for time, count in steps if count == size]
        return {
            "ms_per_image": 1000 * float(np.median(seconds)),
            "batch_size": size,
            "num_batches": len(seconds),
            "of": "features to map and score, without reading and backbone",
        }

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter()
