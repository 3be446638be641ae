"""The small files of a feature cache, any of which may be damaged.

They are the record of the cache, the lines of its index, and what the last run of a split noted.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from omiad.errors import InputError
from omiad.features.normalization import FeatureStatistics
from omiad.files import write_whole
from omiad.schema import conform

logger = logging.getLogger(__name__)

_CRC_BITS = 32

LARGEST_ROW = 1 << 40
"""No features of one image have more values."""


class Entry(NamedTuple):
    """One line of the index."""

    image: str  # path below the data root
    row: int  # number of its row
    crc: int  # CRC-32 of the row
    content: str  # SHA-256 of the image file
    stamp: str  # see `identity`


class _Made(TypedDict):
    """The entries of `made_of` that `omiad cache info` shows."""

    backbone: str
    precision: str
    image_size: int  # side of each tile


class Record(TypedDict):
    """Which images and which extractor a cache belongs to, and the shape of its rows."""

    root: str
    made_of: _Made
    shape: list[int]


class Use(TypedDict):
    """What the last run of a split noted: its images and the statistics of their features."""

    key: str
    mean: list[float]
    std: list[float]
    rms: float
    images: list[str]
    digest: str  # of the other entries


def read_record(path: Path) -> Record:
    """Read the record of a cache.

    Raises:
        InputError: If it is damaged.
    """
    record: Record = _read(path, Record)
    shape = record["shape"]
    if len(shape) != len("chw") or min(shape) < 1 or math.prod(shape) > LARGEST_ROW:
        raise InputError(f"'{path}' is damaged: its shape is {_shown(shape)}. {_fix(path)}")
    return record


def write_use(path: Path, key: str, statistics: FeatureStatistics, images: Sequence[str]) -> Use:
    """Write what a run of a split notes, and return it."""
    mean, std, rms = statistics
    use = Use(key=key, mean=mean.tolist(), std=std.tolist(), rms=rms, images=[*images], digest="")
    use["digest"] = _digest(use)
    write_whole(path, json.dumps(use))
    return use


def read_use(path: Path) -> Use | None:
    """Return what the last run of a split noted, or None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        stored: Use = _read(path, Use)
    except InputError:
        stored = Use(key="", mean=[], std=[], rms=0.0, images=[], digest="")
    if stored["digest"] == _digest(stored):
        return stored
    logger.warning("'%s' is damaged; the statistics are computed again.", path)
    return None


def to_lines(entries: Iterable[Entry]) -> bytes:
    """Return the lines of entries in the index."""
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def parsed(line: str) -> Entry | None:
    """Return the entry of a line, or None if the line is damaged."""
    try:
        entry = Entry(*json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, int, str, str)
    is_whole = all(type(value) is kind for value, kind in zip(entry, kinds, strict=True))
    return entry if is_whole and entry.row >= 0 and entry.crc.bit_length() <= _CRC_BITS else None


def _read(path: Path, kind: Any) -> Any:
    """Return the contents of a JSON file of the cache; see `conform`."""
    try:
        value = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged: it is not JSON. {_fix(path)}") from error
    return conform(value, kind, where=f"'{path}'", fix=_fix(path))


def _shown(shape: Sequence[int]) -> str:
    text = str(shape)
    return text if len(text) < 60 else f"{text[:60]}..."


def _fix(path: Path) -> str:
    return f"Remove the folder '{path.parent}'; the next run computes its features again."


def _digest(use: Use) -> str:
    content = [use[name] for name in ("key", "mean", "std", "rms", "images")]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
