"""Computing the rows that a feature store lacks, and the statistics of rows."""

import errno
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from rich.progress import track
from torch import Tensor

from omiad.errors import InputError
from omiad.features.extractor import FeatureExtractor
from omiad.features.reading import FileLoader, ImageFiles
from omiad.features.shards import ROWS, ShardWriter, recover
from omiad.features.store import FeatureStatistics, FeatureStore, stores

logger = logging.getLogger(__name__)

STD_FLOOR = 1e-3
"""Least standard deviation of a channel, as a share of the features' root mean square."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Missing(NamedTuple):
    """An image whose features are to be computed.

    Attributes:
        key: Key of its row.
        image: Its file.
        name: Its path below the root of the data set.
    """

    key: str
    image: Path
    name: str


@dataclass(frozen=True)
class Build:
    """How features are computed.

    Attributes:
        extractor: Moved to the device.
        read: Reads an image file as uint8 (3, size, size); picklable if there are workers.
        batch_size: Images per forward pass.
        num_workers: Processes that read images.
        device: Where the extractor runs.
        autocast_dtype: Precision of the backbone, None for the weights' own.
        progress: Whether to draw a progress bar.
    """

    extractor: FeatureExtractor
    read: Callable[[Path, int], Tensor]
    batch_size: int = 32
    num_workers: int = 0
    device: torch.device | str = "cpu"
    autocast_dtype: torch.dtype | None = None
    progress: bool = True

    def batches(self, images: Sequence[Path]) -> Iterator[Tensor]:
        """Yield the features (B, C, h, w) of images, half precision, on the CPU."""
        loader: FileLoader[Tensor] = FileLoader(
            ImageFiles(images, self.extractor.image_size, self.read),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # leave torch's global random state alone
        )
        self.extractor.to(self.device)
        shown = track(loader, "features", total=len(loader), disable=not self.progress)
        for pixels in shown:
            yield self.features(pixels).cpu().contiguous()

    def features(self, images: Tensor) -> Tensor:
        """Compute the features (B, C, h, w), half precision, of images (B, 3, S, S), uint8.

        The extractor always sees `batch_size` images: a kernel chosen for another shape may round
        differently, and the features of an image shall not depend on its company.
        """
        starts = range(0, len(images), self.batch_size)
        return torch.cat([self._full_batch(images[i : i + self.batch_size]) for i in starts])

    @torch.no_grad()
    def _full_batch(self, images: Tensor) -> Tensor:
        count = len(images)
        filled = torch.cat([images, images[-1:].expand(self.batch_size - count, -1, -1, -1)])
        kind, enabled = torch.device(self.device).type, self.autocast_dtype is not None
        with torch.autocast(kind, dtype=self.autocast_dtype, enabled=enabled):
            features: Tensor = self.extractor(filled.to(self.device))
        return features[:count].half()


def add_missing(
    store: FeatureStore, build: Build, missing: Sequence[Missing], budget: float | None
) -> None:
    """Compute rows and write them; what was written stays, whatever happens.

    Args:
        store: Locked by the caller, without unfinished shards.
        build: How features are computed.
        missing: Images without a row; each key once.
        budget: GiB that all stores of the folder may take, None for what the disk has.

    Raises:
        InputError: If the rows do not fit, the disk is full after all, an image cannot be read, or
            its features are not finite.
    """
    _check_space(store, len(missing) * store.row_bytes, budget)
    written, batches = 0, build.batches([m.image for m in missing])
    try:
        while written < len(missing):
            with ShardWriter(store.folder, store.row_bytes) as shard:
                for features in batches:
                    rows = missing[written : written + len(features)]
                    _check_finite(features, rows)
                    shard.append(features, ((m.key, m.name) for m in rows))
                    written += len(rows)
                    if shard.is_full:
                        break
    except OSError as error:
        if error.errno not in _FULL:
            raise
        rest = readable((len(missing) - written) * store.row_bytes)
        raise InputError(
            f"The disk is full at '{store.folder}' ({error.strerror}). {written} of "
            f"{len(missing)} images are kept. Free {rest}, then start again: it goes on from there."
        ) from error


def mend(store: FeatureStore) -> None:
    """Take over what a killed process left, and forget lost rows; the store must be locked."""
    if recovered := recover(store.folder, store.row_bytes):
        logger.info("feature cache: %d images of a build that was stopped are kept", recovered)
    for index, rows in store.rows():
        fit = store.rows_that_fit(index)
        if lost := {row.position for row in rows if row.position >= fit}:
            store.drop(index, lost)
            logger.warning(
                "The shard '%s' is truncated; %d of its images have to be computed again.",
                index.with_suffix(ROWS),
                len(lost),
            )


def measure(batches: Iterable[Tensor]) -> FeatureStatistics:
    """Compute the statistics of features (B, C, h, w) in float64."""
    total, values = None, 0
    for batch in batches:
        x = batch.double()
        sums = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
        total = sums if total is None else total + sums
        values += x.numel() // x.shape[1]
    assert total is not None  # there is at least one image
    mean, second_moment = total / values
    rms = float(second_moment.mean().sqrt())
    variance = (second_moment - mean.square()).clamp(min=0)
    # The second bound keeps a division possible where all features are zero.
    std = variance.sqrt().clamp(min=max(STD_FLOOR * rms, 1e-12))
    return FeatureStatistics(mean, std, rms)


def readable(size: float) -> str:
    """Write a number of bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _check_finite(features: Tensor, rows: Sequence[Missing]) -> None:
    finite = features.isfinite().flatten(1).all(1)
    if not finite.all():
        bad = rows[int(finite.int().argmin())].image
        raise InputError(
            f"The features of '{bad}' are not finite in half precision. Remove the image if it is "
            f"unlike the others, or set --trainer.precision 32-true."
        )


def _check_space(store: FeatureStore, needed: int, budget: float | None) -> None:
    cache_dir = store.folder.parent
    logger.info("feature cache: %s to add in '%s'", readable(needed), store.folder)
    free = shutil.disk_usage(store.folder).free
    if free < needed:
        raise InputError(
            f"The feature cache needs {readable(needed)} in '{cache_dir}', but only "
            f"{readable(free)} are free. Free some space, choose another --data.cache_dir, or do "
            f"without by --data.cache false."
        )
    if budget is not None:
        held = sum(other.num_bytes() for other in stores(cache_dir))
        if held + needed > budget * 2**30:
            raise InputError(
                f"The feature caches in '{cache_dir}' take {readable(held)} and need "
                f"{readable(needed)} more, above --data.cache_budget {budget:g} GiB. Raise it, "
                f"remove what is stale by `omiad cache prune`, or do without by --data.cache false."
            )
