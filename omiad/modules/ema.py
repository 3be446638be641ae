"""Exponential moving average of weights, with its half-life counted in images."""

import torch
from torch import nn

from omiad.errors import InputError


def ema_decay(
    batch_images: int, images_seen: int, *, max_halflife: float = 500_000, fraction: float = 0.05
) -> float:
    """Return the decay of one update: 0.5^(batch / half-life).

    The half-life is min(max_halflife, fraction * images_seen), so that an average never outlasts
    a short run (EDM2 and SiD, training loops).

    Images are counted over all ranks, and those seen include the batch. A fraction of 0 turns
    averaging off.
    """
    if fraction < 0:
        raise InputError(f"ema_fraction must not be negative, but got {fraction}.")
    halflife = min(max_halflife, fraction * images_seen)
    return 0.5 ** (batch_images / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Set the parameters of the average to decay * average + (1 - decay) * source."""
    averages, sources = tuple(average.parameters()), tuple(source.parameters())
    torch._foreach_lerp_(averages, sources, 1 - decay)
    for target, buffer in zip(average.buffers(), source.buffers(), strict=True):
        target.copy_(buffer)
