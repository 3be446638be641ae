"""How long `omiad train` will take, from a short measurement of each kind of its work."""

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any

import torch

from omiad.calibration import most_remembered
from omiad.devices import idle_time
from omiad.features import FeatureExtractor
from omiad.memory import coreset
from omiad.products import FOLDS

TIMES_STAGE_1 = 4
"""A batch of stage 2, as long as so many steps of stage 1 (measured on a CPU)."""

MEASURED = 8
"""Tiles in the measurement of the time of a memory."""

CHOSEN = 100
"""Patches that are chosen in that measurement."""


def expected_seconds(
    extractor: FeatureExtractor,
    config: Mapping[str, Any],
    *,
    steps: tuple[int, int],
    images: Mapping[str, int],
    products: int,
) -> float:
    """Estimate the time of all steps of `omiad train` on the device of the backbone.

    Args:
        extractor: The backbone.
        config: The configuration of stage 1.
        steps: Optimiser steps of both stages.
        images: Number of photographs of each split.
        products: Number of products.
    """
    device, options = extractor.mean.device, config["model"]["init_args"]
    grid, channels, tiling = extractor.feature_size, extractor.num_channels, extractor.tiling
    photographs = torch.zeros(2, 3, *tiling.canvas, dtype=torch.uint8, device=device)
    reading = _seconds(device, lambda: extractor.features(photographs)) / len(photographs)
    network = resolve_name(options["network"])(channels=channels).to(device)
    x = torch.randn(config["data"]["batch_size"], channels, grid, grid, device=device)
    t = torch.ones(len(x), dtype=torch.int64, device=device)
    step = _seconds(device, lambda: network(x, t).square().mean().backward())
    scoring = step / len(x) / 3  # without gradients
    memory = _seconds_of_memory(options.get("scoring", {}).get("memory_size", 0), x)
    calibrations = 2 if images["calibration"] else 2 + FOLDS
    batches = steps[0] + TIMES_STAGE_1 * steps[1] / 2
    reads = images["train"] + 2 * images["calibration"] + 2 * images["test"]
    remembered = tiling.count * min(images["train"], products * most_remembered(tiling))
    return batches * step + reads * reading + calibrations * remembered * (scoring + memory)


def _seconds_of_memory(size: int, like: torch.Tensor) -> float:
    """Return how long the patches of one tile take in the two choices of a memory."""
    if not size:
        return 0.0
    channels, cells = like.shape[1], like.shape[2] * like.shape[3]
    patches = torch.randn(MEASURED * cells, channels, device=like.device)
    generator = torch.Generator().manual_seed(0)
    seconds = _seconds(like.device, lambda: coreset(patches, CHOSEN, generator))
    return 2 * seconds / MEASURED * size / CHOSEN


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Return how long some work takes on a device, the second time it is done."""
    work()
    start = idle_time(device)
    work()
    return idle_time(device) - start
