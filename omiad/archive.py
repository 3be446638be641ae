"""Read a file of torch.save as plain data: nothing is imported or called, no damage passes.

The file is a zip archive of a pickle and of the bytes of each tensor. `torch.load` compares no
checksum, and torch before 2.10 has a hole there (CVE-2026-24747). So this module reads the archive
itself: the pickle may name four kinds of things, all listed here, and each tensor must lie within
its own bytes.
"""

import io
import math
import mmap
import pickle
import pickletools
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from omiad.names import one_line

MOST_PARTS = 200_000
"""Most values in a file; a small pickle can refer to its lists so often that no walk would end."""

DEEPEST = 40
"""Most lists and dicts within one another."""

_BROKEN = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    NotImplementedError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    OverflowError,
)
"""What zipfile, pickle and torch raise where a length, a name or a position is wrong."""

_OPCODES = [
    "PROTO",
    "STOP",
    "MARK",
    "NONE",
    "NEWTRUE",
    "NEWFALSE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINUNICODE",
    "EMPTY_DICT",
    "SETITEM",
    "SETITEMS",
    "EMPTY_LIST",
    "APPEND",
    "APPENDS",
    "EMPTY_TUPLE",
    "TUPLE",
    "TUPLE1",
    "TUPLE2",
    "TUPLE3",
    "BINPUT",
    "LONG_BINPUT",
    "BINGET",
    "LONG_BINGET",
    "GLOBAL",
    "REDUCE",
    "BUILD",
    "BINPERSID",
]
"""What torch.save writes for plain data and tensors."""

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class ArchiveError(Exception):
    """An archive is damaged or holds something else than data; the message says what."""


def read_archive(path: Path) -> Any:
    """Return the plain data and tensors of a file of torch.save, mapped from the file.

    Every byte of every record is compared with the archive's CRC-32 first.

    Raises:
        ArchiveError: If the file is no such archive, is damaged, or names code.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise ArchiveError("it is no archive of torch.save but a pickle, or another file")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            with zipfile.ZipFile(file) as archive:
                records = _records(content, archive)
        return _plain(_Reader(records).read(), iter(range(MOST_PARTS)))
    except _BROKEN as error:
        raise ArchiveError(f"{type(error).__name__}: {one_line(str(error)[:120])}") from error


def _records(content: mmap.mmap, archive: zipfile.ZipFile) -> dict[str, memoryview]:
    """Return the bytes of each record by its name below the archive's folder."""
    view, records = memoryview(content), {}
    for entry in archive.infolist():
        # The data of a record follow the name and the extra field in its own header.
        name_bytes, extra_bytes = struct.unpack_from("<HH", content, entry.header_offset + 26)
        start = entry.header_offset + 30 + name_bytes + extra_bytes
        data = view[start : start + entry.file_size]
        if entry.compress_type != zipfile.ZIP_STORED or len(data) != entry.file_size:
            raise ArchiveError(f"record '{one_line(entry.filename[:80])}' is cut or compressed")
        if zlib.crc32(data) != entry.CRC:
            raise ArchiveError(
                f"record '{one_line(entry.filename[:80])}' is damaged, its CRC-32 differs"
            )
        name = entry.filename.partition("/")[2]
        if name in records:
            raise ArchiveError(f"record '{one_line(name[:80])}' is there twice")
        records[name] = data
    if bytes(records.get("byteorder", sys.byteorder.encode())) != sys.byteorder.encode():
        raise ArchiveError("it was written on a machine with another order of bytes")
    return records


class _Reader:
    """Turns the pickle of an archive into data; tensors share the memory of the records."""

    def __init__(self, records: dict[str, memoryview]) -> None:
        self.records = records

    def read(self) -> Any:
        pickled = self.records["data.pkl"]
        for opcode, argument, _ in pickletools.genops(bytes(pickled)):
            if opcode.name == "GLOBAL":
                self.allowed(*str(argument).split(" ", 1))
            is_far = opcode.name == "LONG_BINPUT" and int(argument or 0) > len(pickled)
            if opcode.name not in _OPCODES or is_far:
                raise ArchiveError(f"its pickle holds more than data ({opcode.name})")
        unpickler = _Unpickler(io.BytesIO(pickled))
        unpickler.reader = self
        return unpickler.load()

    def allowed(self, module: str, name: str) -> Any:
        """Return what stands for a name in the pickle."""
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise ArchiveError(
            f"it names '{one_line(f'{module}.{name}'[:120])}', and omiad never imports what a file "
            f"names"
        )

    def storage(self, reference: Any) -> Tensor:
        """Return a record as a flat tensor."""
        kind, dtype, key, _, count = reference
        data = self.records[f"data/{key}"]
        if kind != "storage" or len(data) != count * dtype.itemsize:
            raise ArchiveError(f"record 'data/{one_line(str(key)[:80])}' has another size")
        return torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype)

    @staticmethod
    def tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        """Return a part of a flat tensor in a shape, each element of its own."""
        if math.prod(size) > len(storage):
            raise ArchiveError("a tensor is larger than its bytes")
        return storage.as_strided(size, stride, offset)


class _Unpickler(pickle.Unpickler):
    reader: _Reader

    def find_class(self, module: str, name: str) -> Any:
        return self.reader.allowed(module, name)

    def persistent_load(self, reference: Any) -> Tensor:
        return self.reader.storage(reference)


def _plain(value: Any, budget: Iterator[int], depth: int = 0) -> Any:
    """Return a copy made of dicts, lists, tuples, tensors and plain values; reject all else."""
    if next(budget, None) is None or depth > DEEPEST:
        raise ArchiveError("its data refer to themselves or lie too deep within one another")
    if isinstance(value, dict):  # a pickle can hang other data on an OrderedDict
        items = dict.items(value)
        if wrong := [key for key, _ in items if not isinstance(key, (str, int))]:
            raise ArchiveError(f"it holds a {type(wrong[0]).__name__} as a key")
        return {key: _plain(part, budget, depth + 1) for key, part in items}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(part, budget, depth + 1) for part in value)
    if not isinstance(value, (Tensor, str, int, float, NoneType)):
        raise ArchiveError(f"it holds a {type(value).__name__} where data belong")
    return value
