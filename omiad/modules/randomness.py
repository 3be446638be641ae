"""Training noise that belongs to the sample, not to the batch it happens to be in.

Each sample draws from a generator keyed by (seed, epoch, index), so that a run gives the same
numbers whatever the batch size, worker count or number of ranks, and a resumed run continues the
interrupted one.
"""

import hashlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor


class SampleDraws:
    """Random numbers of one batch, one generator per sample.

    Args:
        seed: Seed of the run.
        epoch: Pass over the data; a sample occurs once in each.
        index: Position of each sample in the data set (B,).
        device: Where the numbers are drawn and returned.
    """

    def __init__(self, *, seed: int, epoch: int, index: Tensor, device: torch.device) -> None:
        self._generators = [
            torch.Generator(device).manual_seed(_key(seed, epoch, i)) for i in index.tolist()
        ]
        self._device = device

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw standard normals (B, *shape)."""
        return self._draw(torch.randn, shape)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw from U[0, 1), (B, *shape)."""
        return self._draw(torch.rand, shape)

    def steps(self, last: int) -> Tensor:
        """Draw timesteps from U{1..last}, (B,), int64."""
        return self._draw(partial(torch.randint, 1, last + 1), ())

    def _draw(self, function: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        drawn = [function(shape, generator=g, device=self._device) for g in self._generators]
        return torch.stack(drawn)


def _key(seed: int, epoch: int, index: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch seeds are signed
