"""Which images a process sees, and in what order."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, Sampler

from omiad.errors import InputError

Sampling = Literal["natural", "balanced"]
"""Whether categories are shown as often as they have images, or all as often as the smallest."""


class EpochSampler(Sampler[int]):
    """Indices in an order drawn from (seed, epoch), shared among processes, none twice an epoch.

    Of an epoch's order, process `rank` takes every `world_size`-th index. All take equally many,
    so that up to `world_size - 1` indices rest for an epoch, others in the next.

    Args:
        num_samples: Number of indices.
        seed: Of the order.
        groups: Group of each index (N,); of every group an epoch draws as many as the smallest
            has. By default an epoch has all indices.
        rank: This process.
        world_size: Number of processes.

    Raises:
        InputError: If an epoch has fewer samples than there are processes.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        seed: int,
        groups: NDArray[np.int64] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.num_samples = num_samples
        if groups is not None:
            self._members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
            self._share = min(map(len, self._members))
            self.num_samples = self._share * len(self._members)
        self.is_balanced = groups is not None
        if self.num_samples < world_size:
            raise InputError(
                f"{self.num_samples} training images cannot be shared among {world_size} "
                f"processes. Use fewer --trainer.devices."
            )
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each. A start set for another is void."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        # A spawn key, since numpy pads seeds with zeros: [2**32, 0] would be the same as [0, 1].
        seeds = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        rng = np.random.default_rng(seeds)
        order = rng.permutation(self._drawn(rng) if self.is_balanced else self.num_samples)
        mine = order[self.rank :: self.world_size][: len(self)]
        start, self.start = self.start, 0
        return iter(mine[start:].tolist())

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        drawn = [rng.permutation(members)[: self._share] for members in self._members]
        return np.concatenate(drawn)


class EvaluationSampler(DistributedSampler[int]):
    """A process's share of all indices, in order; together the processes have each index once.

    Derived from torch's sampler, so that Lightning leaves it in its place; torch's own would
    repeat indices until all processes have equally many.

    Args:
        num_samples: Number of indices.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(self, num_samples: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(
            range(num_samples),  # type: ignore[arg-type] # only its length is asked for
            num_replicas=world_size,
            rank=rank,
            shuffle=False,
        )
        self._mine = range(rank, num_samples, world_size)

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[int]:
        return iter(self._mine)
