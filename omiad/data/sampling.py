"""Which images a process gets, and in what order."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, Sampler

from omiad.data.layouts.listing import checksum
from omiad.errors import InputError
from omiad.types import Sample

Sampling = Literal["natural", "balanced"]
"""natural: each image once in an epoch; balanced: equally many images of each category."""

FEWEST_TO_SHARE = 40
"""Photographs of a category below which none is kept out of training."""


def kept_out(samples: Sequence[Sample], share: float) -> list[Sample]:
    """Return the photographs that are kept out of training, to set thresholds.

    They are a share of each category's photographs: those whose file names have the lowest CRC-32,
    so that the choice is arbitrary, the same in every run, and changes little with new photographs.
    A category with fewer than 40 photographs keeps none.
    """
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.category].append(sample)
    kept = []
    for group in groups.values():
        if len(group) >= FEWEST_TO_SHARE:
            ordered = sorted(group, key=lambda sample: checksum(sample.image))
            kept += ordered[: round(share * len(group))]
    return kept


class EpochSampler(Sampler[int]):
    """Indices in an order drawn from (seed, epoch) and shared among processes.

    Process `rank` takes every `world_size`-th index of an epoch's order. All processes take equally
    many, so up to `world_size - 1` indices are left out in an epoch, other ones in the next.

    If the group of each index (N,) is given, an epoch draws equally many indices of every group, as
    many as the smallest group has; otherwise an epoch has all indices.
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
        self.is_balanced = groups is not None
        names = np.unique(groups) if groups is not None else ()
        self._groups = [np.flatnonzero(groups == name) for name in names]
        self._per_group = min(map(len, self._groups), default=0)
        self.num_samples = self._per_group * len(self._groups) if self.is_balanced else num_samples
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
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch,)))
        drawn = [rng.permutation(members)[: self._per_group] for members in self._groups]
        order = rng.permutation(np.concatenate(drawn) if drawn else self.num_samples)
        mine = order[self.rank :: self.world_size][: len(self)]
        start, self.start = self.start, 0
        return iter(mine[start:].tolist())


class EvaluationSampler(DistributedSampler[int]):
    """One process's share of all indices, in order; each index belongs to one process.

    Lightning replaces samplers under several processes except those derived from torch's
    DistributedSampler, which itself would repeat indices until all processes have equally many.
    """

    def __init__(self, num_samples: int, *, rank: int = 0, world_size: int = 1) -> None:
        indices = range(num_samples)
        super().__init__(indices, world_size, rank, shuffle=False)  # type: ignore[arg-type]
        self._mine = indices[rank::world_size]

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[int]:
        return iter(self._mine)
