"""Features of the splits of a data set: kept on disk, or computed as they stream by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omiad.errors import InputError
from omiad.features import Build, CacheKey, FeatureCache, StreamedFeatures, compute_missing
from omiad.types import Sample

Split = Literal["train", "test"]

Cache = bool | Literal["all"]
"""Splits whose features are kept: the training images (True), all, or none (False)."""


@dataclass(frozen=True)
class FeatureSource:
    """Gives out the features of splits, from a cache where they are kept.

    Attributes:
        root: Folder of the data set.
        cache: Which splits are kept.
        cache_dir: Folder of all caches.
        budget: GiB that they may take together, None for what the disk has.
        key: What tells that an image has changed.
    """

    root: Path
    cache: Cache
    cache_dir: Path
    budget: float | None
    key: CacheKey

    @property
    def cached_splits(self) -> tuple[Split, ...]:
        """The splits whose features are kept on disk."""
        return ("train", "test") if self.cache == "all" else ("train",) if self.cache else ()

    def open(
        self, split: Split, samples: Sequence[Sample], build: Build
    ) -> FeatureCache | StreamedFeatures:
        """Return the features of a split; where it is cached, after computing what is missing."""
        if split not in self.cached_splits:
            return StreamedFeatures(samples, build, root=self.root, cache_dir=self.cache_dir)
        return FeatureCache.open_or_build(
            samples,
            build,
            root=self.root,
            cache_dir=self.cache_dir,
            key=self.key,
            budget=self.budget,
        )

    def build_all(self, samples: Mapping[Split, Sequence[Sample]], build: Build) -> int:
        """Compute all that the cached splits lack, its size told as one; return their images.

        Raises:
            InputError: If no split is cached, or the features do not fit.
        """
        if not self.cached_splits:
            raise InputError("--data.cache false keeps no features. Give true, or all.")
        compute_missing(
            [sample for split in self.cached_splits for sample in samples[split]],
            build,
            root=self.root,
            cache_dir=self.cache_dir,
            key=self.key,
            budget=self.budget,
        )
        return sum(len(self.open(split, samples[split], build)) for split in self.cached_splits)
