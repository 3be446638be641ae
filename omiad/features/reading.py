"""Compute the features of image files."""

import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omiad.errors import InputError, together
from omiad.features.extractor import FeatureExtractor
from omiad.features.identity import content_of, stamp_of
from omiad.progress import track

T = TypeVar("T")

logger = logging.getLogger(__name__)

READING_RULES = 3
"""Version of the rules by which an image file becomes features; raise it when they change."""

BATCH_SIZE = 32
"""Images that are read at once, for a cache as for a test."""

FeaturesOfFiles = tuple[Tensor, Sequence[str], Sequence[str]]
"""Raw features (B, C, h, w) of files, float16 on the CPU; the stamps and SHA-256s of the files."""


class FileLoader(DataLoader[T]):
    """A DataLoader that names all items that cannot be read, without the traceback of a worker.

    Workers do not collect garbage among the objects they were forked with, which would copy the
    pages of those objects into every worker.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # With its own generator, an iteration leaves torch's global random state alone.
        own = {"worker_init_fn": _freeze, "generator": torch.Generator()}
        super().__init__(*args, **{**own, **kwargs})

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:
            # torch's exception holds its traceback, and the traceback holds the workers.
            error.__traceback__ = None
            sentence = str(error).rpartition("InputError: ")[2].strip()
            raise together(self._faults() or [type(error)(sentence)]) from None

    def _faults(self) -> list[InputError]:
        """Read every item on its own, and return what is wrong with those that fail."""
        logger.info("A file cannot be read. All others are tried, so that all can be named.")
        trials: DataLoader[InputError | None] = DataLoader(
            _Trials(self.dataset, self.collate_fn),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),
        )
        return [fault for fault in trials if fault is not None]


@dataclass(frozen=True, eq=False)
class _Trials(Dataset[InputError | None]):
    """What is wrong with each item of a data set, None if nothing is."""

    items: Any
    collate: Callable[[list[Any]], Any]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> InputError | None:
        try:
            self.collate([self.items[index]])
        except InputError as error:
            return error
        return None


def _unchanged(item: T) -> T:
    return item


def _freeze(_: int) -> None:
    gc.freeze()


@dataclass(frozen=True)
class Extraction:
    """How the features of images are computed."""

    extractor: FeatureExtractor  # on the device where it runs
    read: Callable[[Path, int], Tensor]  # a file as uint8 (3, H, W), by the side of a tile
    batch_size: int = BATCH_SIZE  # images that are read at once, fewer if they have tiles
    num_workers: int = 0  # processes that read images

    def batches(self, paths: Sequence[Path]) -> Iterator[FeaturesOfFiles]:
        """Yield the features of image files, or raise an InputError that names a file."""
        loader: FileLoader[FeaturesOfFiles] = FileLoader(
            # Workers share one array, but would copy a list by counting references to its items.
            np.array([os.fsencode(path) for path in paths]),
            batch_size=self.extractor.tiling.at_once(self.batch_size),
            num_workers=self.num_workers,
            collate_fn=partial(_read_files, size=self.extractor.image_size, read=self.read),
        )
        for pixels, stamps, contents in track(loader, "features", total=len(loader), unit="batch"):
            yield self.extractor.features(pixels).cpu().contiguous(), stamps, contents


def _read_files(
    names: Sequence[bytes], size: int, read: Callable[[Path, int], Tensor]
) -> FeaturesOfFiles:
    paths = [Path(os.fsdecode(name)) for name in names]
    # In this order: if a file changes in between, the next start finds another content.
    stamps, contents = list(map(stamp_of, paths)), list(map(content_of, paths))
    return torch.stack([read(path, size) for path in paths]), stamps, contents
