"""A folder of shards that were all made by one extractor, and what is remembered of its use."""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import PIL
import timm
import torch
from torch import Tensor

from omiad.features.extractor import FeatureExtractor
from omiad.features.reading import READING_RULES
from omiad.features.shards import INDEX, PART, ROWS, Row, read_index, write_index
from omiad.files import write_whole

try:
    import fcntl
except ImportError:  # Windows: two processes must not build the same cache at once
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

RECORD = "store.json"
"""What the features of a store were made of."""

VIEWS = "views"
"""Folder of the lists of images that were asked for, with their statistics."""


class FeatureStatistics(NamedTuple):
    """Statistics of raw features over all images and positions.

    Attributes:
        mean: Mean of each channel (C,), float64.
        std: Standard deviation of each channel (C,), float64, at least a thousandth of `rms`, so
            that a channel that never varies in training does not drown the others in a test.
        rms: Root mean square of all values.
    """

    mean: Tensor
    std: Tensor
    rms: float


class Place(NamedTuple):
    """Where a row lies.

    Attributes:
        shard: Name of the shard.
        position: Number of the row in it.
        crc: CRC-32 of its bytes.
    """

    shard: str
    position: int
    crc: int


def fingerprint(extractor: FeatureExtractor, autocast_dtype: torch.dtype | None) -> dict[str, Any]:
    """Return all that determines features but the image, as plain data.

    Of the libraries major and minor version count: torch and timm compute, Pillow decodes and
    resizes. The device does not: half precision hides most of what devices differ by.
    """
    versions = {"torch": torch.__version__, "timm": timm.__version__, "pillow": PIL.__version__}
    return {
        "extractor": extractor.config,
        "weights": extractor.weights_hash,
        "transform": {
            "mean": extractor.mean.flatten().tolist(),
            "std": extractor.std.flatten().tolist(),
            "reading_rules": READING_RULES,
        },
        "weights_dtype": str(extractor.mean.dtype),
        "autocast_dtype": str(autocast_dtype),
        "stored_dtype": "float16",
        "versions": {name: ".".join(v.split(".")[:2]) for name, v in versions.items()},
    }


class FeatureStore:
    """The rows of one extractor on disk, whatever data sets they come from.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = read_json(folder / RECORD)
        self.made_of: dict[str, Any] = record["made_of"]
        channels, height, width = record["shape"]
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.row_bytes = 2 * channels * height * width

    @classmethod
    def open(
        cls, cache_dir: Path, extractor: FeatureExtractor, autocast_dtype: torch.dtype | None
    ) -> "FeatureStore":
        """Open the store of an extractor, made if there is none; its name is a hash."""
        made_of = fingerprint(extractor, autocast_dtype)
        content = json.dumps(made_of, sort_keys=True)
        folder = cache_dir / hashlib.sha256(content.encode()).hexdigest()[:32]
        if not (folder / RECORD).exists():
            _explain(cache_dir, made_of)
            (folder / VIEWS).mkdir(parents=True, exist_ok=True)
            grid = extractor.feature_size
            shape = (extractor.num_channels, grid, grid)
            write_json(folder / RECORD, {"made_of": made_of, "shape": shape})
        return cls(folder)

    def index(self) -> dict[str, Place]:
        """Return the place of each row that is whole, by its key."""
        places: dict[str, Place] = {}
        for path, rows in self.rows():
            fit = self.rows_that_fit(path)
            for row in rows:
                if row.position < fit:
                    places[row.key] = Place(path.stem, row.position, row.crc)
        return places

    def rows_that_fit(self, index: Path) -> int:
        """Return how many rows the file of a shard is long enough for."""
        rows = index.with_suffix(ROWS)
        return rows.stat().st_size // self.row_bytes if rows.exists() else 0

    def drop(self, index: Path, lost: set[int]) -> None:
        """Take rows out of a shard, by their positions, so that they are computed again."""
        if kept := [row for row in read_index(index) if row.position not in lost]:
            write_index(index, kept)
        else:
            self.remove(index)

    def remove(self, index: Path) -> None:
        """Remove a shard."""
        index.unlink()  # first, since rows without an index are removed by whoever comes next
        index.with_suffix(ROWS).unlink(missing_ok=True)

    def rows(self) -> Iterator[tuple[Path, list[Row]]]:
        """Yield the index of each shard with its rows."""
        for path in sorted(self.folder.glob(f"*{INDEX}")):
            yield path, read_index(path)

    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def is_unfinished(self) -> bool:
        """Whether a build is under way, or was killed."""
        return any(self.folder.glob(f"*{PART}"))

    def view_path(self, keys: Sequence[str]) -> Path:
        """Return where the statistics of a list of rows are kept."""
        digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
        return self.folder / VIEWS / f"{digest}.json"

    def statistics(self, keys: Sequence[str]) -> FeatureStatistics | None:
        """Return the statistics of a list of rows if they are known, and note their use."""
        path = self.view_path(keys)
        if not path.exists():
            return None
        stored = read_json(path)["statistics"]
        with suppress(OSError):  # a cache that others may only read
            os.utime(path)
        return FeatureStatistics(
            mean=torch.tensor(stored["mean"], dtype=torch.float64),
            std=torch.tensor(stored["std"], dtype=torch.float64),
            rms=stored["rms"],
        )

    def keep_statistics(
        self, keys: Sequence[str], statistics: FeatureStatistics, *, name: str
    ) -> None:
        """Write the statistics of a list of rows, and a name for people."""
        record = {
            "name": name,
            "statistics": {
                "mean": statistics.mean.tolist(),
                "std": statistics.std.tolist(),
                "rms": statistics.rms,
            },
            "keys": list(keys),
        }
        write_json(self.view_path(keys), record)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing; the system frees the lock when a process dies."""
        with (self.folder / "lock").open("w") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    logger.info("feature cache: waiting for another process in '%s'", self.folder)
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield


def stores(cache_dir: Path) -> list[FeatureStore]:
    """Return all stores in a folder, by name."""
    return [FeatureStore(path.parent) for path in sorted(cache_dir.glob(f"*/{RECORD}"))]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_whole(path, json.dumps(content))


def _explain(cache_dir: Path, made_of: dict[str, Any]) -> None:
    """Say what keeps the store that is most alike from being used."""
    wanted = _flat(made_of)
    unlike = [
        [name for name in wanted if wanted[name] != _flat(store.made_of).get(name)]
        for store in stores(cache_dir)
    ]
    if unlike:
        nearest = min(unlike, key=len)
        logger.info(
            "feature cache: none for these settings yet; the nearest differs in %s",
            ", ".join(nearest),
        )


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        inner = isinstance(value, dict)
        flat.update(_flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value})
    return flat
