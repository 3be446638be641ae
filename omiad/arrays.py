"""Arrays in npz and npy files that anyone may have written: each is checked before it is used."""

import math
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from omiad.errors import InputError, MissingInputError
from omiad.files import whole_file
from omiad.names import check_name, one_line

Array = NDArray[Any]

LARGEST = 2**32
"""Most bytes of all arrays of a file together; a small file may unpack to any size."""

HIGHEST = float(np.finfo(np.float32).max)
"""Highest number of an array: maps and scores are float32."""


_LONGEST_TEXT = 2**16
"""Most bytes of a text: 16,384 characters."""


class Column(NamedTuple):
    """The form that an array of a group must have.

    Attributes:
        dtype: Its type in numpy's spelling; "U" is text of any length.
        shape: Its sizes. A letter stands for the same size in all columns of a group, which is at
            least 1 for a capital letter.
    """

    dtype: str
    shape: tuple[int | str, ...]


def write_groups(path: Path, groups: Iterable[tuple[str, Mapping[str, Array]]]) -> None:
    """Write groups of arrays as one npz file, whole; one group at a time is in memory.

    Raises:
        InputError: If the disk is full.
    """
    with (
        whole_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for group, arrays in groups:
            for name, array in arrays.items():
                with archive.open(f"{group}/{name}.npy", "w", force_zip64=True) as file:
                    npy.write_array(file, array, allow_pickle=False)


def read_groups(
    path: Path, columns: Mapping[str, Column], *, mend: str
) -> Iterator[tuple[str, dict[str, Array]]]:
    """Read one group of arrays after another, as `write_groups` wrote them.

    Args:
        path: The npz file.
        columns: The form of each array of a group.
        mend: What the user can do about a broken file, a sentence.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If the file is broken, unpacks to too much, or holds anything else: other names
            or forms, Python objects, numbers that are not finite.
    """
    with _read(path, mend), zipfile.ZipFile(path) as archive:
        for group, members in _members(archive, path).items():
            if members.keys() != columns.keys():
                raise ValueError(f"'{group}' holds {', '.join(map(one_line, sorted(members)))}")
            arrays = {}
            for name in columns:
                with archive.open(members[name]) as file:
                    arrays[name] = _array(file)
            _refuse_other_forms(group, arrays, columns)
            yield group, arrays


def read_array(
    path: Path, *, mend: str, largest: int = LARGEST, member: str | None = None
) -> Array:
    """Read an array of an npy or npz file, told apart by their content.

    Args:
        path: The file.
        mend: What the user can do about a broken file, a sentence.
        largest: Most bytes of the array.
        member: Its name in an npz file; by default the file holds no other array.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If the file is broken, holds several arrays or Python objects, or unpacks to
            more bytes than the largest.
    """
    with _read(path, mend):
        return _one_array(path, largest, member)


def read_text(path: Path, member: str, *, mend: str) -> str:
    """Read an array of an npz file that is a single text.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If the file is broken, or the array is something else.
    """
    with _read(path, mend):
        array = _one_array(path, _LONGEST_TEXT, member)
        if array.dtype.kind != "U" or array.size != 1:
            raise ValueError(f"its {member} is {array.dtype} of shape {array.shape}, not a text")
        return str(array.item())  # numpy accepts numbers that are no characters, and raises here


def array_names(path: Path) -> frozenset[str]:
    """Return the names of the arrays of an npz file; any other file, or a broken one, has none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except Exception:  # whatever a broken file makes zipfile raise; reading it says what is wrong
        return frozenset()


@contextmanager
def _read(path: Path, mend: str) -> Iterator[None]:
    """Turn whatever a broken file makes zipfile and numpy raise into a sentence."""
    if not path.is_file():
        raise MissingInputError(f"There is no file '{path}'. {mend}")
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = one_line(str(error)) or type(error).__name__
        raise InputError(f"'{path}' cannot be read ({reason[:300]}). {mend}") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """Return the members of each group by their names; every group has a category's name."""
    members = archive.infolist()
    if (total := sum(member.file_size for member in members)) > LARGEST:
        raise ValueError(f"it unpacks to {total} bytes, more than {LARGEST}")
    groups: dict[str, dict[str, zipfile.ZipInfo]] = defaultdict(dict)
    for member in members:
        group, _, file = member.filename.rpartition("/")
        name = file.removesuffix(".npy")
        if name == file or name in groups[group]:
            raise ValueError(f"its member '{one_line(member.filename)}' is no array or is repeated")
        groups[check_name(group, kind="category", where=path)][name] = member
    return groups


def _one_array(path: Path, largest: int, member: str | None) -> Array:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return _array(file, largest)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if member is None and len(members) != 1:
            raise ValueError(f"it holds {len(members)} arrays, not one")
        chosen = members[0] if member is None else archive.getinfo(f"{member}.npy")
        with archive.open(chosen) as content:
            return _array(content, largest)


def _array(file: IO[bytes], largest: int = LARGEST) -> Array:
    """Read an array; nothing is allocated that the file does not hold."""
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in headers:
        raise ValueError(f"its array has the unknown version {version}")
    shape, is_fortran, dtype = headers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > largest:
        raise ValueError(f"it holds an array of shape {shape} and {dtype}, which is too large")
    content = file.read(size + 1)  # the end of a member is where its checksum is compared
    if len(content) != size:
        raise ValueError(f"its array has not the {size} bytes that it announces")
    return np.ndarray(shape, dtype, content, order="F" if is_fortran else "C")


def _refuse_other_forms(
    group: str, arrays: Mapping[str, Array], columns: Mapping[str, Column]
) -> None:
    """Raise ValueError if an array of a group has another form than its column."""
    sizes: dict[str, int] = {}
    for name, (kind, shape) in columns.items():
        array = arrays[name]
        what = f"'{group}' has as {name} {array.dtype} of shape {array.shape}"
        if array.dtype != kind and not array.dtype.kind == kind == "U":
            raise ValueError(f"{what}, not {kind}")
        if array.ndim != len(shape):
            raise ValueError(f"{what}, not {len(shape)} axes")
        for size, wanted in zip(array.shape, shape, strict=True):
            known = wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)
            if size != known or (size == 0 and str(wanted).isupper()):
                raise ValueError(f"{what}, which does not fit its other arrays")
        if kind == "U":
            array.tolist()  # numpy accepts numbers that are no characters, and raises here
        if array.dtype.kind == "f" and not (np.abs(array) <= HIGHEST).all():
            raise ValueError(f"'{group}' has NaN, infinite or impossible numbers as {name}")
