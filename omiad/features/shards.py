"""Files of feature rows that never change once they are sealed.

    00000.rows          rows (C, h, w), half precision, one after the other, without a header
    00000.index         one line for each row: its key, CRC-32, position and image
    00001.rows.part     a shard that is being written, or was when its process was killed
    00001.index.part

A row is written before its line, and a shard gets its final name when both are on the disk. Only
whole rows whose CRC-32 agrees are taken over from a shard that was left unfinished.
"""

import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from omiad.files import write_whole

ROWS, INDEX, PART = ".rows", ".index", ".part"

SHARD_BYTES = 256 * 2**20
"""Size at which a shard is sealed."""


class Row(NamedTuple):
    """One line of an index.

    Attributes:
        key: What the features were made of, as a hash.
        crc: CRC-32 of their bytes.
        position: Number of the row in its shard.
        image: Path of the image below the root of its data set.
    """

    key: str
    crc: int
    position: int
    image: str


class ShardWriter:
    """Appends rows to a new shard; sealed on leaving the context, whatever the reason.

    Args:
        folder: Where the shard goes.
        row_bytes: Size of a row.
    """

    def __init__(self, folder: Path, row_bytes: int) -> None:
        number = 1 + max((int(path.stem) for path in folder.glob(f"*{ROWS}")), default=-1)
        self._rows = folder / f"{number:05}{ROWS}{PART}"
        self._index = folder / f"{number:05}{INDEX}{PART}"
        self._row_bytes = row_bytes
        self.num_rows = 0

    def __enter__(self) -> "ShardWriter":
        # Exclusive, should two processes get past the lock.
        self._index_file = self._index.open("x")
        self._rows_file = self._rows.open("xb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        check = True
        try:
            with self._index_file, self._rows_file:
                pass  # closes both, also where the disk is full
            check = error is not None
        finally:
            recover(self._rows.parent, self._row_bytes, check=check)

    @property
    def is_full(self) -> bool:
        """Whether the shard has reached its size."""
        return self.num_rows * self._row_bytes >= SHARD_BYTES

    def append(self, features: Tensor, labels: Iterable[tuple[str, str]]) -> None:
        """Write rows, then their lines of the index.

        Args:
            features: Rows (B, C, h, w), half precision, contiguous, on the CPU.
            labels: Key and image of each.
        """
        content = content_of(features)
        self._rows_file.write(content)
        self._rows_file.flush()
        lines = []
        for i, (key, image) in enumerate(labels):
            crc = zlib.crc32(content[i * self._row_bytes : (i + 1) * self._row_bytes])
            lines.append(_line(Row(key, crc, self.num_rows + i, image)))
        self._index_file.write("".join(lines))
        self._index_file.flush()
        self.num_rows += len(lines)


def recover(folder: Path, row_bytes: int, *, check: bool = True) -> int:
    """Seal what is whole of the shards that were left unfinished; return the number of rows.

    Args:
        folder: Where the shards are; no other process may write there.
        row_bytes: Size of a row.
        check: Whether to compare the CRC-32 of the rows.
    """
    recovered = 0
    for leftover in folder.glob("*.new"):
        leftover.unlink()
    for index in sorted(folder.glob(f"*{INDEX}{PART}")):
        name = index.name.removesuffix(INDEX + PART)
        sealed, rows = folder / f"{name}{ROWS}", folder / f"{name}{ROWS}{PART}"
        source = sealed if sealed.exists() else rows
        whole = list(_whole_rows(source, read_index(index), row_bytes, check=check))
        if not whole:
            source.unlink(missing_ok=True)
            index.unlink()
            continue
        with source.open("r+b") as file:
            file.truncate(len(whole) * row_bytes)
            os.fsync(file.fileno())
        write_index(index, whole)
        # The last step is one renaming: a shard is sealed or it is not.
        os.replace(source, sealed)
        os.replace(index, folder / f"{name}{INDEX}")
        sync_folder(folder)
        recovered += len(whole)
    for rows in (*folder.glob(f"*{ROWS}{PART}"), *folder.glob(f"*{ROWS}")):
        if not (folder / f"{rows.name.partition('.')[0]}{INDEX}").exists():
            rows.unlink()  # killed before its index was there, or after it was removed
    return recovered


def _whole_rows(path: Path, rows: Sequence[Row], row_bytes: int, *, check: bool) -> Iterator[Row]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for row in rows:
            if check and zlib.crc32(file.read(row_bytes)) != row.crc:
                return
            yield row


def write_index(path: Path, rows: Iterable[Row]) -> None:
    """Write an index, whole or not at all."""
    write_whole(path, "".join(map(_line, rows)))
    sync_folder(path.parent)


def read_index(path: Path) -> list[Row]:
    """Read an index up to the first line that is not whole."""
    lines = path.read_text(errors="replace").split("\n")[:-1]
    return [row for row in takewhile(bool, map(_parsed, lines)) if row]


def _parsed(line: str) -> Row | None:
    try:
        return Row(*json.loads(line))
    except (ValueError, TypeError):
        return None


def map_rows(path: Path, shape: tuple[int, int, int]) -> Tensor:
    """Map a shard as a tensor (N, C, h, w), half precision."""
    # A private mapping: writing to it by accident changes memory, never the file.
    size = path.stat().st_size // 2
    row = shape[0] * shape[1] * shape[2]
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.half)
    return mapped[: size // row * row].view(-1, *shape)


def content_of(features: Tensor) -> memoryview:
    """Return the bytes of contiguous features on the CPU."""
    return features.numpy().data.cast("B")


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk; where folders cannot be opened, do nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
