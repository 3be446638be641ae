"""The table of predictions: a row for each file, as CSV or as lines of JSON."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from omiad.files import full_disk_named, whole_file
from omiad.names import cell, one_line
from omiad.prediction.journal import Row

Format = Literal["csv", "jsonl"]

TABLES = {"csv": "predictions.csv", "jsonl": "predictions.jsonl"}
"""Names of the table by its format."""

BOX = ("left", "top", "right", "bottom", "area")
"""A region, in pixels of the photograph; right and bottom lie outside."""

COLUMNS = (
    *("image", "product", "score", "p_value", "threshold", "decision", "regions", *BOX),
    *("overlay", "mask", "map", "error"),
)
"""Columns of the CSV table; the box is that of the region with the largest area."""


class Table:
    """Writes rows to the table of a folder.

    Args:
        folder: Folder of the predictions.
        kind: A CSV table shows the number of regions and the largest one; JSON shows all regions.
    """

    def __init__(self, folder: Path, kind: Format) -> None:
        self.path = folder / TABLES[kind]
        self._head = _csv(COLUMNS) if kind == "csv" else ""
        self._line = _csv_line if kind == "csv" else _json_line

    def write(self, rows: Iterable[Row]) -> None:
        """Write all rows; the file appears when it is whole."""
        with whole_file(self.path) as temporary, temporary.open("wb") as file:
            file.write(_encoded(self._head))
            file.writelines(_encoded(self._line(row)) for row in rows)

    def append(self, row: Row) -> None:
        """Add a row to the file at once.

        Raises:
            InputError: If the disk is full.
        """
        with full_disk_named(self.path), self.path.open("ab") as file:
            file.write(_encoded(self._line(row)))


def _csv_line(row: Row) -> str:
    largest: list[Any] = max(row["regions"], key=lambda region: region[-1], default=[""] * len(BOX))
    numbers = (row["score"], row["p_value"], row["threshold"])
    score, p_value, limit = ("" if each is None else f"{each:.9g}" for each in numbers)
    is_scored = row["score"] is not None
    return _csv(
        (
            *(cell(row["image"]), cell(row["product"] or ""), score, p_value, limit),
            *(row["decision"], len(row["regions"]) if is_scored else "", *largest),
            *(row["overlay"], row["mask"], row["map"], cell(one_line(row["error"]))),
        )
    )


def _json_line(row: Row) -> str:
    shown: dict[str, Any] = {name: value for name, value in row.items() if name in COLUMNS}
    shown["regions"] = [dict(zip(BOX, region, strict=True)) for region in row["regions"]]
    return json.dumps(shown) + "\n"


def _csv(cells: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _encoded(text: str) -> bytes:
    # A file name need not be text: it is written with the bytes that it has on disk.
    return text.encode(errors="surrogateescape")
