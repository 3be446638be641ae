"""The files of one feature cache: rows of features, and an index of the image each row belongs to.

    record.json    the data root, the shape of a row, and what the features are made of
    0.rows         rows (C, h, w), half precision, one after another, without a header
    0.index        one JSON line for each computed image
    train.json     images and statistics of the last list of training images; test.json likewise
    lock           locked by the process that writes

Rows are flushed to the disk before their lines are appended to the index, and a row that has a line
never changes. A process that is killed therefore leaves at most rows without lines, a part of a row
and a part of a line; the next writer cuts off the parts. If an image has several lines, the last
one counts. Pruning writes the remaining rows to 1.rows, then 1.index; the highest index counts.
"""

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from omiad.errors import InputError
from omiad.features.extractor import FeatureExtractor
from omiad.features.normalization import FeatureStatistics
from omiad.features.reading import READING_RULES, FeaturesOfFiles
from omiad.features.records import Entry, parsed, read_record, read_use, to_lines, write_use
from omiad.files import lock_file, write_whole

logger = logging.getLogger(__name__)

RECORD, ROWS, INDEX, GONE = "record.json", ".rows", ".index", ".gone"


class FeatureStore:
    """Features of the images below one data root by one extractor, on disk.

    Attributes:
        path: The rows file.
        entries: The entry of each image whose row is whole, by its path below the data root.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._record = read_record(folder / RECORD)
        self.root = Path(self._record["root"])
        self.made_of: dict[str, Any] = dict(self._record["made_of"])
        self.shape = torch.Size(self._record["shape"])
        self.row_bytes = 2 * self.shape.numel()
        self.load()

    @classmethod
    def open(cls, cache_dir: Path, root: Path, extractor: FeatureExtractor) -> "FeatureStore":
        """Open the store of a data root and an extractor, or create it; mend its record."""
        where, made = str(root.resolve()), made_of(extractor)
        digest = hashlib.sha256(json.dumps([where, made], sort_keys=True).encode()).hexdigest()
        folder = cache_dir / digest[:32]
        shape = [extractor.num_channels, *extractor.mosaic_size]
        record = json.dumps({"root": where, "made_of": made, "shape": shape})
        if not (folder / RECORD).exists():
            others = [store.made_of for store in stores(cache_dir) if str(store.root) == where]
            differing = [[name for name in made if x.get(name) != made[name]] for x in others]
            if nearest := min(differing, key=len, default=[]):
                said = "feature cache: none for these settings yet; the nearest differs in %s"
                logger.info(said, ", ".join(nearest))
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / RECORD, record)
        elif (folder / RECORD).read_text(errors="replace") != record:
            logger.warning("'%s' was damaged and is mended.", folder / RECORD)
            write_whole(folder / RECORD, record)
        return cls(folder)

    @property
    def split_paths(self) -> list[Path]:
        """Where the images and statistics of the last list of each split are."""
        return sorted(path for path in self.folder.glob("*.json") if path.name != RECORD)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing; remove what a killed process left unfinished."""
        with self._lock():
            if not (self.folder / RECORD).exists():  # removed while this process waited
                write_whole(self.folder / RECORD, json.dumps(self._record))
            self._mend()
            yield

    def _lock(self) -> TextIO:
        """Return the open lock file of the folder as soon as this process has the lock."""
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("w")
            except FileNotFoundError:  # another process removes the folder right now
                continue
            if not (is_mine := lock_file(file)):
                logger.info("feature cache: waiting for another process in '%s'", self.folder)
                is_mine = lock_file(file, wait=True)
            if is_mine:
                return file
            file.close()  # the folder was removed while this process waited

    def remove(self) -> None:
        """Remove the whole store, while `locked`; a process that waits makes it anew."""
        gone = self.folder.with_name(f".{self.folder.name}{GONE}")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(self.folder, gone)
        shutil.rmtree(gone)

    def load(self) -> list[Entry]:
        """Read the index again; return entries whose rows are lost."""
        found = [path for path in self.folder.glob(f"*{INDEX}") if path.stem.isdecimal()]
        indexes = sorted(found, key=lambda path: int(path.stem))
        index = indexes[-1] if indexes else self.folder / f"0{INDEX}"
        self.path = index.with_suffix(ROWS)
        lines = index.read_text(errors="replace").split("\n")[:-1] if index.exists() else []
        entries, num_rows = list(filter(None, map(parsed, lines))), self.num_rows
        self.entries = {entry.image: entry for entry in entries if entry.row < num_rows}
        return [entry for entry in entries if entry.row >= num_rows]

    def _mend(self) -> None:
        lost = self.load()
        for leftover in (*self.folder.glob(f"*{ROWS}"), *self.folder.glob(f"*{INDEX}*")):
            if leftover.stem != self.path.stem:
                leftover.unlink()
        if lost:
            logger.warning("'%s' is truncated; %d images are computed again.", self.path, len(lost))
        index = self.path.with_suffix(INDEX)
        if index.exists() and index.read_bytes() != to_lines(self.entries.values()):
            self.replace_index(self.path, self.entries.values())
        # Whole rows stay even without an entry, since another process may have mapped them.
        if self.path.exists() and self.path.stat().st_size % self.row_bytes:
            os.truncate(self.path, self.num_rows * self.row_bytes)

    def append(self, images: Sequence[str], batch: FeaturesOfFiles) -> None:
        """Write the rows of images and then their entries, while `locked`."""
        features, stamps, contents = batch
        rows = range(self.num_rows, self.num_rows + len(images))
        _append(self.path, features.numpy().data.cast("B"))
        self.add_entries(list(map(Entry, images, rows, map(crc_of, features), contents, stamps)))

    def add_entries(self, entries: Sequence[Entry]) -> None:
        """Append entries, which replace earlier ones of the same images, while `locked`."""
        _append(self.path.with_suffix(INDEX), to_lines(entries))
        self.entries.update((entry.image, entry) for entry in entries)

    def replace_index(self, path: Path, entries: Iterable[Entry]) -> None:
        """Write the whole index of a rows file, while `locked`."""
        write_whole(path.with_suffix(INDEX), to_lines(entries))
        self.load()

    def statistics(
        self, split: str, key: str, images: Sequence[str], compute: Callable[[], FeatureStatistics]
    ) -> FeatureStatistics:
        """Return the statistics of a list of images, and note their use.

        If those kept for the split have another key, they are computed and kept in their place.
        The rows of `images` stay as long as these statistics do.
        """
        path = self.folder / f"{split}.json"
        stored = read_use(path)
        if stored is not None and stored["key"] == key:
            with suppress(OSError):  # a cache that this user may only read
                os.utime(path)
        else:
            stored = write_use(path, key, compute(), images)
        mean = torch.tensor(stored["mean"], dtype=torch.float64)
        std = torch.tensor(stored["std"], dtype=torch.float64)
        return FeatureStatistics(mean, std, stored["rms"])

    @property
    def num_rows(self) -> int:
        """Number of whole rows in the rows file."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0


def stores(cache_dir: Path) -> list[FeatureStore]:
    """Return all stores in a folder, by name; a warning names those whose record is damaged."""
    folders = [path.parent for path in sorted(cache_dir.glob(f"*/{RECORD}"))]
    return list(filter(None, (_whole(each) for each in folders if each.suffix != GONE)))


def _whole(folder: Path) -> FeatureStore | None:
    try:
        return FeatureStore(folder)
    except InputError as error:
        logger.warning("%s", error)
        return None


def made_of(extractor: FeatureExtractor) -> dict[str, Any]:
    """Return everything but the image that determines the features, as plain data.

    The device does not count, since half precision hides most differences of devices.
    """
    libraries = ("torch", "timm", "pillow")
    return {
        **extractor.config,
        "weights": extractor.weights_hash,
        "weights_dtype": str(extractor.mean.dtype),
        "mean": extractor.mean.flatten().tolist(),
        "std": extractor.std.flatten().tolist(),
        "reading_rules": READING_RULES,
        **{name: ".".join(version(name).split(".")[:2]) for name in libraries},
    }


def map_rows(path: Path, shape: torch.Size) -> Tensor:
    """Map a rows file as a tensor (N, C, h, w), half precision; writing never changes the file."""
    size = path.stat().st_size // (2 * shape.numel()) * shape.numel()
    return torch.from_file(str(path), shared=False, size=size, dtype=torch.half).view(-1, *shape)


def crc_of(row: Tensor) -> int:
    """Return the CRC-32 of a contiguous row on the CPU."""
    return zlib.crc32(row.numpy().data.cast("B"))


def _append(path: Path, content: bytes | memoryview) -> None:
    """Append to a file and flush it to the disk, or leave the file as it was."""
    before = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        os.truncate(path, before)
        raise
