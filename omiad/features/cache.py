"""Features of a list of images on disk, computed once and mapped into memory."""

import hashlib
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from omiad.errors import InputError, MissingInputError
from omiad.features.building import Build, Missing, add_missing, measure, mend
from omiad.features.extractor import FeatureExtractor
from omiad.features.shards import ROWS, content_of, map_rows
from omiad.features.store import FeatureStatistics, FeatureStore, Place
from omiad.types import Sample

logger = logging.getLogger(__name__)

CacheKey = Literal["stat", "content"]
"""What an image is known by: its path below the root, size and time of change, or its bytes."""

_CHUNK_BYTES = 64 * 2**20


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
        self._forget_mappings()
        self.statistics = measure(self._chunks()) if statistics is None else statistics

    def _forget_mappings(self) -> None:
        self._mapped: dict[int, Tensor] = {}
        # Shared, so that workers do not check again what another epoch's workers checked.
        self._is_checked = torch.zeros(len(self._places), dtype=torch.bool)
        self._is_checked.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Tensor:
        shard, position, crc = self._places[index].tolist()
        if shard not in self._mapped:
            path = self.path / f"{self._shards[shard]}{ROWS}"
            self._mapped[shard] = map_rows(path, self._shape)
        row = self._mapped[shard][position]
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
        self._forget_mappings()

    @classmethod
    def open_or_build(
        cls,
        samples: Sequence[Sample],
        extractor: FeatureExtractor,
        *,
        root: Path,
        cache_dir: Path,
        read: Callable[[Path, int], Tensor],
        batch_size: int = 32,
        num_workers: int = 0,
        device: torch.device | str = "cpu",
        autocast_dtype: torch.dtype | None = None,
        key: CacheKey = "stat",
        budget: float | None = None,
        progress: bool = True,
    ) -> "FeatureCache":
        """Open the cached features of images, after computing those that are not there yet.

        Features are kept by extractor, weights, precision, reading rules and library versions
        (`store.fingerprint`), and by image. Images that were added or changed are computed, all
        others are not opened. An interrupted build goes on where it stopped, and a second process
        that wants the same features waits for the first.

        Args:
            samples: Images, in the order of the cache's rows; at least one.
            extractor: Moved to the device if there is something to build.
            root: Folder of the data set.
            cache_dir: Folder of all caches.
            read: Reads an image file as uint8 (3, size, size); picklable if there are workers.
            batch_size: Images per forward pass.
            num_workers: Processes that read images.
            device: Where the extractor runs.
            autocast_dtype: Precision of the backbone, None for the weights' own.
            key: What tells that an image has changed.
            budget: GiB that all caches in the folder may take, None for what the disk has.
            progress: Whether to draw a progress bar.

        Raises:
            MissingInputError: If an image is gone.
            InputError: If an image cannot be read or has no finite features, or the features do
                not fit on the disk or in the budget.
        """
        store = FeatureStore.open(cache_dir.expanduser(), extractor, autocast_dtype)
        keys = [row_key(sample.image, root, key) for sample in samples]
        build = Build(
            extractor, read, batch_size, num_workers, torch.device(device), autocast_dtype, progress
        )
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
        cache = cls(store, [places[k] for k in keys], store.statistics(keys))
        if not store.view_path(keys).exists():
            store.keep_statistics(keys, cache.statistics, root=root)
        return cache


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
