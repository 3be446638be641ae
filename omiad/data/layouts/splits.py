"""Read the files that split a published data set, from a download that may be damaged."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omiad.errors import InputError
from omiad.files import check_regular
from omiad.names import one_line
from omiad.schema import conform

LARGEST = 1 << 28
"""Most bytes of a split; the largest published one has 10 MB."""

AGAIN = "Copy the file again from the official archive."


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a CSV file with the words for the place of each, such as "line 2 of 'x'".

    Raises:
        InputError: If the file is no such table; the message names the file and the line.
    """
    rows = csv.DictReader(_text(path).splitlines(keepends=True), strict=True)
    where = f"line 1 of '{path}'"
    try:
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise InputError(f"'{path}' has no column {', '.join(missing)}. {AGAIN}")
        where = f"line {rows.line_num + 1} of '{path}'"
        for row in rows:
            if None in row or None in row.values():
                cells = len(rows.fieldnames or ())
                raise InputError(f"There are not {cells} cells in {where}. {AGAIN}")
            yield where, row
            where = f"line {rows.line_num + 1} of '{path}'"
    except csv.Error as error:
        raise InputError(f"There is no CSV in {where} ({error}). {AGAIN}") from error


def read_split(path: Path, kind: Any) -> Any:
    """Return the contents of a JSON file, which have the type `kind`; see `conform`.

    Raises:
        InputError: If they have not; the message names the file and the entry.
    """
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON ({one_line(str(error))}). {AGAIN}") from error
    return conform(value, kind, where=f"'{path}'", fix=AGAIN)


def _text(path: Path) -> str:
    if (size := check_regular(path).st_size) > LARGEST:
        raise InputError(f"'{path}' has {size / 2**20:.0f} MiB, too many for a split. {AGAIN}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"Line {line} of '{path}' is not UTF-8. {AGAIN}") from error
