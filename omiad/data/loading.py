"""Training batches that can be taken up again where a run was interrupted."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from omiad.data.images import read_image
from omiad.data.packing import packed
from omiad.data.sampling import EpochSampler
from omiad.errors import InputError
from omiad.features import FeatureCache
from omiad.features.reading import FileLoader
from omiad.types import FeatureBatch, ImageBatch, Sample, ScoringBatch


class PhotographBatch(NamedTuple):
    """Training photographs whose features are computed on the device.

    Attributes:
        images: RGB pixels (B, 3, S, S), uint8.
        index: Position of each sample in the training list (B,), int64.
        category: Index into the sorted list of categories (B,), int64.
    """

    images: Tensor
    index: Tensor  # type: ignore[assignment] # nobody searches a batch as a tuple
    category: Tensor


Batch = TypeVar("Batch", bound=FeatureBatch | PhotographBatch | ImageBatch | ScoringBatch)


class CachedFeatures(Dataset[FeatureBatch]):
    """Items of a feature cache with their category: a `FeatureBatch` without the batch axis.

    Args:
        cache: Features of the samples.
        category: Index of each sample's category (N,), int64.
    """

    def __init__(self, cache: FeatureCache, category: Tensor) -> None:
        self.cache = cache
        self.category = category

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> FeatureBatch:
        return FeatureBatch(self.cache[index], torch.tensor(index), self.category[index])


class TrainingPhotographs(Dataset[PhotographBatch]):
    """Training images as pixels: a `PhotographBatch` without the batch axis.

    Args:
        samples: The training samples.
        image_size: Side of the images in pixels.
        category: Index of each sample's category (N,), int64.
    """

    def __init__(self, samples: Sequence[Sample], image_size: int, category: Tensor) -> None:
        self.samples = packed(samples)
        self.image_size = image_size
        self.category = category

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> PhotographBatch:
        image = read_image(self.samples[index].image, self.image_size)
        return PhotographBatch(image, torch.tensor(index), self.category[index])


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
        dataset: CachedFeatures | TrainingPhotographs,
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
        self._loader: FileLoader[FeatureBatch | PhotographBatch] = FileLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            collate_fn=partial(collate, pinned=pin_memory),
            drop_last=len(sampler) >= batch_size,
            generator=torch.Generator(),  # leave torch's global random state alone
        )

    def __len__(self) -> int:
        """Batches of a whole epoch, also while taking one up again."""
        return self._num_batches

    def __iter__(self) -> Iterator[FeatureBatch | PhotographBatch]:
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
        state = {"balanced": 0, **state}  # older checkpoints know no other order
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
            "balanced": int(self.sampler.is_balanced),
        }


def collate(items: list[Batch], *, pinned: bool) -> Batch:
    """Stack items; in the main process straight into memory that a GPU copies from faster."""
    if not pinned or get_worker_info() is not None:
        stacked: Batch = default_collate(items)
        return stacked
    return _pinned(items)  # type: ignore[no-any-return]


def _pinned(items: Sequence[Any]) -> Any:
    first = items[0]
    if isinstance(first, tuple):
        return type(first)(*map(_pinned, zip(*items, strict=True)))
    batch = torch.empty((len(items), *first.shape), dtype=first.dtype, pin_memory=True)
    return torch.stack(tuple(items), out=batch)
