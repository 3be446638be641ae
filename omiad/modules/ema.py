"""Exponential moving average of weights, with its half-life counted in images."""

import torch
from torch import Tensor, nn

from omiad.errors import InputError


def ema_decay(
    batch_images: int, images_seen: int, *, max_halflife: float = 500_000, fraction: float = 0.05
) -> float:
    """Return the decay of one update: 0.5^(batch / half-life).

    The half-life is min(max_halflife, fraction * images_seen), so that an average never outlasts
    a short run (EDM2 and SiD, training loops).

    Args:
        batch_images: Images in this update, over all ranks.
        images_seen: Images seen so far, this update's included.
        max_halflife: Longest half-life, in images.
        fraction: Half-life as a fraction of the images seen; 0 turns averaging off.

    Raises:
        InputError: If the fraction is negative.
    """
    if fraction < 0:
        raise InputError(f"ema_fraction must not be negative, but got {fraction}.")
    halflife = min(max_halflife, fraction * images_seen)
    return 0.5 ** (batch_images / halflife) if halflife > 0 else 0.0


@torch.no_grad()
def ema_update(average: nn.Module, source: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the source's: average = decay average + ... source."""
    averages: list[Tensor] = list(average.parameters())
    sources: list[Tensor] = list(source.parameters())
    torch._foreach_lerp_(averages, sources, 1 - decay)
    for target, buffer in zip(average.buffers(), source.buffers(), strict=True):
        target.copy_(buffer)
