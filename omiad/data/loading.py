"""Training batches in an order that depends on seed and epoch alone, and can be taken up again."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from omiad.errors import InputError
from omiad.features import FeatureCache
from omiad.types import FeatureBatch, Sample


class CachedFeatures(Dataset[FeatureBatch]):
    """Items of a feature cache with their category: a `FeatureBatch` without the batch axis.

    Args:
        cache: Features of the samples, in the same order.
        samples: The training samples.
        categories: Sorted names of the categories.
    """

    def __init__(
        self, cache: FeatureCache, samples: Sequence[Sample], categories: Sequence[str]
    ) -> None:
        self.cache = cache
        self.category = torch.tensor([categories.index(sample.category) for sample in samples])

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> FeatureBatch:
        return FeatureBatch(self.cache[index], torch.tensor(index), self.category[index])


class EpochSampler(Sampler[int]):
    """Every index once per epoch, in an order drawn from (seed, epoch), shared among processes.

    Of an epoch's order, process `rank` takes every `world_size`-th index. All take equally many,
    so that up to `world_size - 1` indices rest for an epoch, others in the next.

    Args:
        num_samples: Number of indices.
        seed: Of the order.
        rank: This process.
        world_size: Number of processes.

    Raises:
        InputError: If there are fewer samples than processes.
    """

    def __init__(self, num_samples: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if num_samples < world_size:
            raise InputError(
                f"{num_samples} training images cannot be shared among {world_size} processes. "
                f"Use fewer --trainer.devices."
            )
        self.num_samples = num_samples
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
        order = np.random.default_rng(seeds).permutation(self.num_samples)
        mine = order[self.rank :: self.world_size][: len(self)]
        start, self.start = self.start, 0
        return iter(mine[start:].tolist())


class ResumableLoader:
    """Training batches; a run interrupted within an epoch goes on with the batches it had left.

    Lightning keeps `state_dict` in its checkpoints. It wraps a DataLoader instead of being one:
    Lightning would replace the sampler of a DataLoader under several processes, and start reading
    ahead before it names the epoch. Iteration here begins with the first batch asked for.

    Args:
        dataset: Items to batch.
        sampler: Order of the items, and this process's share.
        batch_size: Items per batch and process. A smaller last batch is left out, unless it would
            be the only one.
        num_workers: Processes that read ahead; the order does not depend on it.
        pin_memory: Whether batches lie in memory that a GPU copies from faster.
    """

    def __init__(
        self,
        dataset: CachedFeatures,
        sampler: EpochSampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._batches_given = 0
        self._num_batches = max(1, len(sampler) // batch_size)
        self._loader: DataLoader[FeatureBatch] = DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            drop_last=len(sampler) >= batch_size,
            generator=torch.Generator(),  # leave torch's global random state alone
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, also while taking one up again."""
        return self._num_batches

    def __iter__(self) -> Iterator[FeatureBatch]:
        self._batches_given = self.sampler.start // self.batch_size
        for batch in self._loader:
            self._batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the epoch and how many of its batches were given out."""
        return {"epoch": self.sampler.epoch, "batches": self._batches_given, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a position.

        Raises:
            InputError: If it lies within an epoch of other batches than these.
        """
        for name, value in self._order().items():
            if state[name] != value and 0 < state["batches"] < state["num_batches"]:
                raise InputError(
                    f"The checkpoint was written within an epoch with {name} {state[name]}, but "
                    f"now it is {value}. Resume with the same, or from a checkpoint of an epoch's "
                    f"end."
                )
        self.sampler.epoch = state["epoch"]
        self.sampler.start = state["batches"] * self.batch_size
        self._batches_given = state["batches"]

    def _order(self) -> dict[str, int]:
        return {
            "num_samples": self.sampler.num_samples,
            "batch_size": self.batch_size,
            "seed": self.sampler.seed,
            "world_size": self.sampler.world_size,
            "num_batches": len(self),
        }
