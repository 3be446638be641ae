"""Training batches that continue where an interrupted run stopped."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from omiad.data.packing import PackedSamples
from omiad.data.sampling import EpochSampler
from omiad.errors import InputError
from omiad.features.reading import FileLoader
from omiad.photographs import WHITE_LEVEL, read_image
from omiad.tiling import WHOLE, Tiles, Tiling
from omiad.types import FeatureBatch


class PhotographBatch(NamedTuple):
    """Training photographs whose features are still to be computed; see `FeatureBatch`."""

    images: Tensor  # RGB pixels (B, 3, S, S), uint8
    index: Tensor  # type: ignore[assignment] # shadows tuple.index, which is unused
    category: Tensor


@dataclass(frozen=True, eq=False)
class TrainingItems(Dataset[FeatureBatch | PhotographBatch]):
    """The tiles of training images with the index of the category of each image (N,), int64.

    An item is a `FeatureBatch` without the batch axis or, without features, a `PhotographBatch`,
    for which the whole photograph is read. Tile k of image i has the index i T + k.
    """

    samples: PackedSamples
    category: Tensor
    image_size: int
    features: Dataset[Tensor] | None
    white_level: int = WHITE_LEVEL
    tiles: Tiles = WHOLE

    def __len__(self) -> int:
        return len(self.samples) * self._tiling.count

    def __getitem__(self, index: int) -> FeatureBatch | PhotographBatch:
        image, tile = divmod(index, self._tiling.count)
        labels = torch.tensor(index), self.category[image]
        if self.features is not None:
            return FeatureBatch(self._tiling.tile(self.features[image], tile), *labels)
        return PhotographBatch(self.pixels(index), *labels)

    def pixels(self, index: int) -> Tensor:
        """Read the pixels of a tile (3, S, S), uint8."""
        image, tile = divmod(index, self._tiling.count)
        path = self.samples[image].image
        read = read_image(path, self.image_size, tiles=self.tiles, white_level=self.white_level)
        return self._tiling.cut(read[None])[tile]

    @property
    def _tiling(self) -> Tiling:
        return Tiling(self.tiles, self.image_size)


class ResumableLoader:
    """Training batches; a run that was interrupted in an epoch gets the remaining ones.

    Lightning keeps `state_dict` in its checkpoints. This class wraps a DataLoader instead of being
    one, because Lightning would replace the sampler of a DataLoader under several processes and
    would read ahead before it sets the epoch. A smaller last batch is dropped, unless it is the
    only one.
    """

    def __init__(
        self,
        dataset: TrainingItems,
        sampler: EpochSampler,
        *,
        batch_size: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._batches_given = 0
        self._loader: FileLoader[FeatureBatch | PhotographBatch] = FileLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            collate_fn=partial(collate, pinned=pin_memory),
            drop_last=len(sampler) >= batch_size,
        )
        self._order = {  # all that determines the batches of an epoch
            "num_samples": sampler.num_samples,
            "batch_size": batch_size,
            "seed": sampler.seed,
            "world_size": sampler.world_size,
            "num_batches": len(self._loader),
            "balanced": int(sampler.is_balanced),
        }

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, also in a resumed epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[FeatureBatch | PhotographBatch]:
        self._batches_given = self.sampler.start // self.batch_size
        for batch in self._loader:
            self._batches_given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the epoch, and the number of its batches that were given out."""
        return {"epoch": self.sampler.epoch, "batches": self._batches_given, **self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position; refuse the middle of an epoch whose batches would differ."""
        for name, value in self._order.items():
            if state[name] != value and 0 < state["batches"] < state["num_batches"]:
                raise InputError(
                    f"The checkpoint was written in the middle of an epoch with {name} "
                    f"{state[name]}, but this run has {value}. Resume with the same value, or from "
                    f"a checkpoint at the end of an epoch."
                )
        self.sampler.epoch = state["epoch"]
        self.sampler.start = state["batches"] * self.batch_size
        self._batches_given = state["batches"]


def collate(items: list[Any], *, pinned: bool) -> Any:
    """Stack items; if pinned and in the main process, write them straight into pinned memory."""
    if not pinned or get_worker_info() is not None:
        return default_collate(items)
    first = items[0]
    if isinstance(first, tuple):
        parts = zip(*items, strict=True)
        return type(first)(*(collate(list(part), pinned=True) for part in parts))
    batch = torch.empty((len(items), *first.shape), dtype=first.dtype, pin_memory=True)
    return torch.stack(items, out=batch)
