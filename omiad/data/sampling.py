"""Which images a process gets, and in what order."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, Sampler

from omiad.errors import InputError

Sampling = Literal["natural", "balanced"]
"""How often an epoch shows a category: once per image, or as often as every other category."""


class EpochSampler(Sampler[int]):
    """Indices in an order drawn from (seed, epoch) and shared among processes.

    Process `rank` takes every `world_size`-th index of an epoch's order. All processes take equally
    many, so up to `world_size - 1` indices are left out in an epoch, other ones in the next.

    Args:
        num_samples: Number of indices.
        seed: Seed of the order.
        groups: Group of each index (N,). An epoch draws equally many indices of every group, as
            many as the smallest group has. By default an epoch has all indices.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        InputError: If an epoch has fewer indices than there are processes.
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
            self._per_group = min(map(len, self._members))
            self.num_samples = self._per_group * len(self._members)
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
        """Choose the epoch; Lightning calls this before each. A start in another epoch is reset."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        # A spawn key, because numpy pads seeds with zeros: [2**32, 0] would equal [0, 1].
        seeds = np.random.SeedSequence(self.seed, spawn_key=(self.epoch,))
        rng = np.random.default_rng(seeds)
        order = rng.permutation(self._drawn(rng) if self.is_balanced else self.num_samples)
        mine = order[self.rank :: self.world_size][: len(self)]
        start, self.start = self.start, 0
        return iter(mine[start:].tolist())

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        drawn = [rng.permutation(members)[: self._per_group] for members in self._members]
        return np.concatenate(drawn)


class EvaluationSampler(DistributedSampler[int]):
    """A process's share of all indices, in order; together the processes have each index once.

    Lightning replaces samplers under several processes except those derived from torch's
    DistributedSampler, which itself would repeat indices until all processes have equally many.

    Args:
        num_samples: Number of indices.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(self, num_samples: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(
            range(num_samples),  # type: ignore[arg-type] # only its length is used
            num_replicas=world_size,
            rank=rank,
            shuffle=False,
        )
        self._mine = range(rank, num_samples, world_size)

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[int]:
        return iter(self._mine)
