"""Features of a list of images on disk, computed once and mapped into memory."""

import hashlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from omiad.errors import InputError, MissingInputError
from omiad.features.building import Build, Missing, add_missing, measure, mend
from omiad.features.shards import ROWS, content_of, map_rows
from omiad.features.store import FeatureStatistics, FeatureStore, Place
from omiad.types import Sample

logger = logging.getLogger(__name__)

CacheKey = Literal["stat", "content"]
"""What an image is known by: its path below the root, size and time of change, or its bytes."""

_CHUNK_BYTES = 64 * 2**20
_NUM_RECENT = 64


class FeatureCache(Dataset[Tensor]):
    """Half-precision features of a list of images, mapped from files; made by `open_or_build`.

    An item is the features (C, h, w) of one image, a view of a file's pages. Its CRC-32 is compared
    when it is read for the first time.

    Args:
        store: Where the rows are.
        places: Place of each row.
        statistics: Of all rows; by default they are measured.
    """

    def __init__(
        self,
        store: FeatureStore,
        places: Sequence[Place],
        statistics: FeatureStatistics | None = None,
    ) -> None:
        self.path = store.folder
        self._shape = store.shape
        self._shards = sorted({place.shard for place in places})
        numbers = {shard: number for number, shard in enumerate(self._shards)}
        self._places = np.array(
            [(numbers[shard], position, crc) for shard, position, crc in places], dtype=np.int64
        )
        self._map()
        self.statistics = measure(self._chunks()) if statistics is None else statistics

    def _map(self) -> None:
        # All at once: a shard may be removed from the folder while its pages are in use.
        self._mapped = [
            map_rows(self.path / f"{shard}{ROWS}", self._shape) for shard in self._shards
        ]
        # Shared, so that workers do not check again what another epoch's workers checked.
        self._is_checked = torch.zeros(len(self._places), dtype=torch.bool)
        self._is_checked.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Tensor:
        shard, position, crc = self._places[index].tolist()
        row: Tensor = self._mapped[shard][position]
        if not self._is_checked[index]:
            if zlib.crc32(content_of(row)) != crc:
                raise InputError(
                    f"Row {position} of '{self.path / self._shards[shard]}{ROWS}' is damaged: its "
                    f"CRC-32 differs. Run `omiad cache verify --cache_dir {self.path.parent}` and "
                    f"start again; only damaged features are computed anew."
                )
            self._is_checked[index] = True
        return row

    def _chunks(self) -> Iterator[Tensor]:
        channels, height, width = self._shape
        step = max(1, _CHUNK_BYTES // (2 * channels * height * width))
        for start in range(0, len(self), step):
            yield torch.stack([self[i] for i in range(start, min(start + step, len(self)))])

    def __getstate__(self) -> dict[str, Any]:
        # A worker process maps the files itself instead of receiving a copy.
        return {k: v for k, v in vars(self).items() if k not in ("_mapped", "_is_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()

    @classmethod
    def open_or_build(
        cls,
        samples: Sequence[Sample],
        build: Build,
        *,
        root: Path,
        cache_dir: Path,
        key: CacheKey = "stat",
        budget: float | None = None,
    ) -> "FeatureCache":
        """Open the cached features of images, after computing those that are not there yet.

        Features are kept by extractor, weights, precision, reading rules and library versions
        (`store.fingerprint`), and by image. Images that were added or changed are computed, all
        others are not opened. An interrupted build goes on where it stopped, and a second process
        that wants the same features waits for the first.

        Args:
            samples: Images, in the order of the cache's rows; at least one.
            build: How features are computed.
            root: Folder of the data set.
            cache_dir: Folder of all caches.
            key: What tells that an image has changed.
            budget: GiB that all caches in the folder may take, None for what the disk has.

        Raises:
            MissingInputError: If an image is gone.
            InputError: If an image cannot be read or has no finite features, or the features do
                not fit on the disk or in the budget.
        """
        store, keys, places = compute_missing(
            samples, build, root=root, cache_dir=cache_dir, key=key, budget=budget
        )
        cache = cls(store, [places[k] for k in keys], store.statistics(keys))
        if not store.view_path(keys).exists():
            store.keep_statistics(
                keys, cache.statistics, name=f"{samples[0].split} of {root.resolve()}"
            )
        return cache


class StreamedFeatures(Dataset[Tensor]):
    """The features of a list of images computed whenever they are asked for; the same numbers.

    Only their statistics are kept on disk, since they take a pass over all images.

    Args:
        samples: Images, at least one.
        build: How features are computed.
        root: Folder of the data set.
        cache_dir: Folder of all caches.

    Raises:
        MissingInputError: If an image is gone.
        InputError: If an image cannot be read.
    """

    def __init__(
        self, samples: Sequence[Sample], build: Build, *, root: Path, cache_dir: Path
    ) -> None:
        self.build = build
        self._images = [sample.image for sample in samples]
        self._recent: dict[int, Tensor] = {}
        store = FeatureStore.open(cache_dir, build.extractor, build.autocast_dtype)
        keys = [row_key(image, root, "stat") for image in self._images]
        statistics = store.statistics(keys)
        if statistics is None:
            logger.info("features: reading %d images for their statistics", len(keys))
            statistics = measure(build.batches(self._images))
            store.keep_statistics(keys, statistics, name=f"{samples[0].split} of {root.resolve()}")
        self.statistics = statistics

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        # A few are asked for again and again, to calibrate with.
        if index not in self._recent:
            image = self.build.read(self._images[index], self.build.extractor.image_size)
            if len(self._recent) == _NUM_RECENT:
                self._recent.clear()
            self._recent[index] = self.build.features(image[None])[0].cpu()
        return self._recent[index]


def compute_missing(
    samples: Sequence[Sample],
    build: Build,
    *,
    root: Path,
    cache_dir: Path,
    key: CacheKey = "stat",
    budget: float | None = None,
) -> tuple[FeatureStore, list[str], dict[str, Place]]:
    """Compute the features of images that are not cached yet, as `FeatureCache.open_or_build`.

    Returns:
        The store, the key of each image's row, and the places of all rows.
    """
    store = FeatureStore.open(cache_dir, build.extractor, build.autocast_dtype)
    keys = [row_key(sample.image, root, key) for sample in samples]
    places = store.index()
    if not all(k in places for k in keys):
        with store.locked():
            mend(store)
            places = store.index()
            missing = {
                k: Missing(k, s.image, s.image.relative_to(root).as_posix())
                for k, s in zip(keys, samples, strict=True)
                if k not in places
            }
            logger.info(
                "feature cache: %d of %d images are there", len(keys) - len(missing), len(keys)
            )
            if missing:
                add_missing(store, build, list(missing.values()), budget)
                places = store.index()
    return store, keys, places


def row_key(image: Path, root: Path, key: CacheKey) -> str:
    """Hash what an image is known by.

    Raises:
        MissingInputError: If the image is gone.
    """
    try:
        if key == "content":
            known_by = hashlib.sha256(image.read_bytes()).hexdigest()
        else:
            stat = image.stat()
            name = image.relative_to(root).as_posix()
            known_by = f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}"
    except FileNotFoundError as error:
        raise MissingInputError(
            f"The image '{image}' is gone. Put it back, or start again to list the files anew."
        ) from error
    return hashlib.sha256(known_by.encode()).hexdigest()[:32]
