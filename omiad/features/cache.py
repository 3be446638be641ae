"""The features of a list of images: read from a cache on disk, or computed when asked for."""

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from omiad.errors import InputError
from omiad.features.identity import content_of, stamp_of
from omiad.features.normalization import FeatureStatistics, measure
from omiad.features.reading import Extraction
from omiad.features.records import Entry
from omiad.features.store import FeatureStore, crc_of, map_rows
from omiad.files import NO_SPACE, full_disk_named
from omiad.types import Sample

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 2**20
_NUM_RECENT = 64


class FeatureCache(Dataset[Tensor]):
    """Half-precision features of at least one image; missing ones are computed first.

    An item is the features (C, h, w) of one image, a view of the pages of a mapped file in
    `cache_dir`. When an item is read for the first time, its CRC-32 is compared. Only images that
    were added or changed are computed. An interrupted build continues where it stopped, and a
    second process that needs the same features waits for the first.
    """

    def __init__(
        self, samples: Sequence[Sample], extraction: Extraction, *, root: Path, cache_dir: Path
    ) -> None:
        store = compute_missing(samples, extraction, root=root, cache_dir=cache_dir)
        images = [sample.name(root) for sample in samples]
        entries = [store.entries[image] for image in images]
        self.path = store.path
        self._shape = store.shape
        self._row = np.array([entry.row for entry in entries], dtype=np.int64)
        self._crc = np.array([entry.crc for entry in entries], dtype=np.int64)
        try:
            self._map()
        except FileNotFoundError as error:
            raise InputError(
                f"'{store.folder}' was pruned while this run opened it. Start again."
            ) from error
        key = _key((entry.image, entry.content) for entry in entries)
        split = samples[0].split
        self.statistics = store.statistics(split, key, images, lambda: measure(self._chunks()))

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> Tensor:
        row = self._rows[self._row[index]]
        if not self._is_checked[index]:
            if crc_of(row) != self._crc[index]:
                raise InputError(
                    f"Row {self._row[index]} of '{self.path}' is damaged: its CRC-32 differs. Run "
                    f"`omiad cache verify --cache_dir {self.path.parent.parent}` and start again; "
                    f"only damaged features are computed again."
                )
            self._is_checked[index] = True
        return row

    def _map(self) -> None:
        self._rows = map_rows(self.path, self._shape)
        # Shared memory, so that the workers of one epoch spare those of the next the comparison.
        self._is_checked = torch.zeros(len(self), dtype=torch.bool)
        self._is_checked.share_memory_()  # type: ignore[no-untyped-call]

    def _chunks(self) -> Iterator[Tensor]:
        step = max(1, _CHUNK_BYTES // self[0].nbytes)
        for start in range(0, len(self), step):
            yield torch.stack([self[i] for i in range(start, min(start + step, len(self)))])

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker maps the file itself instead of receiving a copy.
        return {k: v for k, v in vars(self).items() if k not in ("_rows", "_is_checked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map()


class StreamedFeatures(Dataset[Tensor]):
    """The same features computed when asked for; only the statistics are kept on disk."""

    def __init__(
        self, samples: Sequence[Sample], extraction: Extraction, *, root: Path, cache_dir: Path
    ) -> None:
        self.extraction = extraction
        self._paths = [sample.image for sample in samples]
        # Calibration asks for the same few images again and again.
        num_recent = extraction.extractor.tiling.at_once(_NUM_RECENT)
        self._features = lru_cache(num_recent)(self._compute_one)
        key = _key((str(path), _identity(path)) for path in self._paths)
        store = FeatureStore.open(cache_dir, root, extraction.extractor)
        split = f"streamed-{samples[0].split}"
        self.statistics = store.statistics(split, key, [], self._measure)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return self._features(index)

    def _compute_one(self, index: int) -> Tensor:
        image = self.extraction.read(self._paths[index], self.extraction.extractor.image_size)
        return self.extraction.extractor.features(image[None])[0].cpu()

    def _measure(self) -> FeatureStatistics:
        logger.info("features: reading %d images for their statistics", len(self))
        return measure(features for features, _, _ in self.extraction.batches(self._paths))


def compute_missing(
    samples: Sequence[Sample], extraction: Extraction, *, root: Path, cache_dir: Path
) -> FeatureStore:
    """Compute the features of images that are not cached yet; return the store of all."""
    store = FeatureStore.open(cache_dir, root, extraction.extractor)
    images = {sample.name(root): sample.image for sample in samples}
    missing, touched = _compare(images, store)
    if missing or (touched and os.access(store.folder, os.W_OK)):
        with full_disk_named(store.folder), store.locked():
            missing, touched = _compare(images, store)
            store.add_entries(touched)
            if missing:
                there = len(images) - len(missing)
                logger.info("feature cache: %d of %d images are there", there, len(images))
                _compute({name: images[name] for name in missing}, store, extraction)
    return store


def _compare(images: dict[str, Path], store: FeatureStore) -> tuple[list[str], list[Entry]]:
    """Return the images to compute, and new entries for images whose stamp alone differs."""
    missing, touched = [], []
    for name, path in images.items():
        entry = store.entries.get(name)
        try:
            stamp = stamp_of(path)
            if entry is not None and stamp and entry.stamp == stamp:
                continue
            if entry is None or content_of(path) != entry.content:
                missing.append(name)
            elif entry.stamp != stamp:
                touched.append(entry._replace(stamp=stamp))
        except InputError:
            missing.append(name)  # reading it says what is wrong, with all others
    return missing, touched


def _identity(path: Path) -> str:
    """Return what a file is known by; a file without a stamp is known by its content."""
    try:
        return stamp_of(path) or content_of(path)
    except InputError:
        return ""  # measuring, which reads the file, says what is wrong


def _compute(images: dict[str, Path], store: FeatureStore, extraction: Extraction) -> None:
    """Compute and append the features of images; after an error, appended features stay."""
    needed, free = len(images) * store.row_bytes, shutil.disk_usage(store.folder).free
    logger.info("feature cache: %s to add in '%s'", readable(needed), store.folder)
    if free < needed:
        raise InputError(
            f"The feature cache needs {readable(needed)} in '{store.folder.parent}', but only "
            f"{readable(free)} are free. Free some space, choose another --data.cache_dir, or turn "
            f"the cache off with --data.cache false."
        )
    names, paths, written = list(images), list(images.values()), 0
    try:
        for batch in extraction.batches(paths):
            part = names[written : written + len(batch[0])]
            finite = batch[0].isfinite().flatten(1).all(1)
            if not finite.all():
                first = paths[written + int(finite.int().argmin())]
                raise InputError(
                    f"The features of '{first}' are not finite in half precision. Remove the image "
                    f"if it differs from the others, or set --trainer.precision 32-true."
                )
            store.append(part, batch)
            written += len(part)
    except OSError as error:
        if error.errno not in (*NO_SPACE, errno.EFBIG):
            raise
        raise InputError(
            f"The disk is full at '{store.folder}' ({error.strerror}). {written} of {len(images)} "
            f"images are kept. Free {readable(needed - written * store.row_bytes)}, then start "
            f"again: the build continues from there."
        ) from error


def readable(size: float) -> str:
    """Return a number of bytes in a readable unit."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _key(parts: Iterable[tuple[str, str]]) -> str:
    """Hash a list of images and what identifies their contents."""
    return hashlib.sha256(os.fsencode("\n".join(map("\0".join, parts)))).hexdigest()
