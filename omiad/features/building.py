"""The files of a feature cache while it is built."""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omiad.errors import InputError
from omiad.features.extractor import FeatureExtractor

logger = logging.getLogger(__name__)

Shape = tuple[int, int, int, int]

FEATURES = "features.bin"
"""Rows of half-precision features (C, h, w), one after the other, without a header."""

META = "meta.json"
"""What the cache was made of, and its statistics; present means finished."""

STD_FLOOR = 1e-3
"""Least standard deviation of a channel, as a share of the features' root mean square."""

_BYTES_PER_VALUE = 2  # half precision
_CHUNK_BYTES = 64 * 2**20


def num_bytes(shape: Shape) -> int:
    """Size of a cache's rows (N, C, h, w)."""
    return shape[0] * shape[1] * shape[2] * shape[3] * _BYTES_PER_VALUE


def map_features(path: Path, shape: Shape) -> Tensor:
    """Map the rows of the cache in a folder as a tensor (N, C, h, w), half precision."""
    # A private mapping: writing to it by accident changes memory, never the file.
    size = num_bytes(shape) // _BYTES_PER_VALUE
    mapped = torch.from_file(str(path / FEATURES), shared=False, size=size, dtype=torch.half)
    return mapped.view(shape)


class Part:
    """The rows of an unfinished cache; whole rows on disk are not computed again.

    Args:
        path: Folder of the cache.
        shape: Of all rows (N, C, h, w).

    Raises:
        InputError: If the rows to come do not fit on the disk.
    """

    def __init__(self, path: Path, shape: Shape) -> None:
        self._final = path / FEATURES
        self._part = path / f"{FEATURES}.part"
        self._row_bytes = num_bytes(shape) // shape[0]
        if self._final.exists():  # stopped between the rows and their statistics
            os.replace(self._final, self._part)
        on_disk = self._part.stat().st_size if self._part.exists() else 0
        self.rows_done = min(on_disk // self._row_bytes, shape[0])
        logger.info(
            "feature cache: %d images, %s in '%s'%s",
            shape[0],
            _readable(num_bytes(shape)),
            path,
            f", {self.rows_done} images done by an earlier run" if self.rows_done else "",
        )
        needed, free = num_bytes(shape) - on_disk, shutil.disk_usage(path).free
        if free < needed:
            raise InputError(
                f"The feature cache needs {_readable(needed)} in '{path.parent}', but only "
                f"{_readable(free)} are free. Free some space, or choose another --data.cache_dir."
            )

    def write(self, batches: Iterable[Tensor], images: Sequence[Path]) -> None:
        """Append rows and give the file its final name.

        Args:
            batches: Features (B, C, h, w), half precision, of the images not done yet.
            images: Their files.

        Raises:
            InputError: If features of an image are not finite.
        """
        with self._part.open("ab") as file:
            file.truncate(self.rows_done * self._row_bytes)
            written = 0
            for features in batches:
                finite = features.isfinite().flatten(1).all(1)
                if not finite.all():
                    bad = images[written + int(finite.int().argmin())]
                    raise InputError(
                        f"The features of '{bad}' are not finite in half precision. Remove the "
                        f"image if it is unlike the others, or set --trainer.precision 32-true."
                    )
                file.write(features.numpy().data)
                file.flush()
                written += len(features)
            os.fsync(file.fileno())
        os.replace(self._part, self._final)


@torch.no_grad()
def extract(
    batches: Iterable[Tensor],
    extractor: FeatureExtractor,
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> Iterator[Tensor]:
    """Yield the features (B, C, h, w) of batches of images, half precision, on the CPU."""
    for images in batches:
        enabled = autocast_dtype is not None
        with torch.autocast(device.type, dtype=autocast_dtype, enabled=enabled):
            features = extractor(images.to(device))
        yield features.half().cpu().contiguous()


def measure(path: Path, shape: Shape) -> dict[str, Any]:
    """Compute the statistics of a cache's rows, in float64: mean, std and rms as plain numbers."""
    features = map_features(path, shape)
    sums = torch.zeros(2, shape[1], dtype=torch.float64)
    rows = max(1, _CHUNK_BYTES * shape[0] // num_bytes(shape))
    for start in range(0, shape[0], rows):
        x = features[start : start + rows].double()
        sums += torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
    mean, second_moment = sums / (shape[0] * shape[2] * shape[3])
    rms = float(second_moment.mean().sqrt())
    variance = (second_moment - mean.square()).clamp(min=0)
    # The second bound keeps a division possible where all features are zero.
    std = variance.sqrt().clamp(min=max(STD_FLOOR * rms, 1e-12))
    return {"mean": mean.tolist(), "std": std.tolist(), "rms": rms}


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Write the meta data of a cache, whole or not at all; this finishes it."""
    temporary = path / f"{META}.part"
    with temporary.open("w") as file:
        json.dump(meta, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path / META)


def is_finished(path: Path, shape: Shape) -> bool:
    """Whether a folder holds a finished cache; one of another size is removed with a warning."""
    meta, features = path / META, path / FEATURES
    if not meta.exists():
        return False
    on_disk = features.stat().st_size if features.exists() else 0
    if on_disk == num_bytes(shape):
        return True
    logger.warning(
        "The feature cache '%s' is damaged (%d bytes instead of %d) and is built again.",
        path,
        on_disk,
        num_bytes(shape),
    )
    meta.unlink()
    features.unlink(missing_ok=True)
    return False


def _readable(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
