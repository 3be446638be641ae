"""The journal of a prediction: a line for each photograph, so that a second run can go on."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, TypedDict

from omiad.errors import InputError
from omiad.files import full_disk_named, write_whole
from omiad.report import Entry
from omiad.schema import conform

JOURNAL = "predictions.part"
"""Name of the journal in the folder of the predictions; it is gone once the table is whole."""

WATCHED = "watched.jsonl"
"""Name of the journal of `--watch`, which stays, so that the same command can go on."""


class Row(TypedDict):
    """What is known about a photograph.

    Attributes:
        image: Path of the file.
        stamp: Size and time of the file, see `Photograph`.
        product: The product that the photograph shows; None if it is unknown.
        score: Image score; None if the photograph is unreadable.
        p_value: Share of normal photographs that score as high; None without a product.
        threshold: Image score above which a photograph of the product is defective, or None.
        decision: A decision of `Inspection`, or "unreadable".
        regions: Left, top, right, bottom and area of each defect, in pixels of the photograph.
        overlay: Path of the overlay below the folder; empty if there is none. So are mask and map.
        error: Why the photograph is unreadable; empty if it was scored.
        entry: What the page shows, None if the page had no room for the photograph.
    """

    image: str
    stamp: list[int]
    product: str | None
    score: float | None
    p_value: float | None
    threshold: float | None
    decision: str
    regions: list[list[int]]
    overlay: str
    mask: str
    map: str
    error: str
    entry: Entry | None


def journal_name(rank: int) -> str:
    """Return the name of the journal of one of several processes that share a prediction."""
    return f"{JOURNAL}.{rank}" if rank else JOURNAL


class Rows(Protocol):
    """Rows of photographs in their order."""

    num_rows: int

    def rows(self) -> Iterator[Row]:
        """Yield the rows, one at a time."""

    def remove(self) -> None:
        """Remove them, once the table is whole."""


class Journal:
    """The rows of a prediction on the disk, in the order of the photographs.

    A killed process leaves at most one broken line, which is cut off; its photograph is scored
    again.

    Args:
        path: The file, which is created if it does not exist.
        made_of: What the rows depend on, by the option that names it.

    Attributes:
        num_rows: Number of whole rows.

    Raises:
        InputError: If the rows of the file depend on something else.
    """

    def __init__(self, path: Path, made_of: Mapping[str, object]) -> None:
        self._path = path
        if not path.exists():
            write_whole(path, f"{json.dumps(made_of)}\n")
        self._refuse_others(made_of)
        self.num_rows = 0
        with path.open("rb") as file:
            size = len(file.readline())
        for _, end in self._lines():
            self.num_rows, size = self.num_rows + 1, end
        os.truncate(path, size)

    def add(self, row: Row) -> None:
        """Append a row; it survives the death of the process.

        Raises:
            InputError: If the disk is full. The rows before it are intact.
        """
        with full_disk_named(self._path), self._path.open("ab") as file:
            file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self.num_rows += 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows from the disk, one at a time."""
        for row, _ in self._lines():
            yield row

    def remove(self) -> None:
        """Remove the file, once the table is whole."""
        self._path.unlink()

    def _lines(self) -> Iterator[tuple[Row, int]]:
        """Yield each whole row with the position behind it, up to the first broken line."""
        with self._path.open("rb") as file:
            end = len(file.readline())
            for line in file:
                end += len(line)
                try:
                    row = conform(json.loads(line), Row, where=f"'{self._path}'")
                except (ValueError, RecursionError):
                    return
                if not line.endswith(b"\n"):
                    return
                yield row, end

    def _refuse_others(self, made_of: Mapping[str, object]) -> None:
        with self._path.open("rb") as file:
            try:
                begun = conform(json.loads(file.readline()), dict[str, object], where="")
            except (ValueError, RecursionError):
                begun = {}
        changed = [name for name, value in made_of.items() if begun.get(name) != value]
        if changed:
            raise InputError(
                f"'{self._path.parent}' holds an unfinished prediction with another "
                f"{' and '.join(changed)}. Repeat the command that began it, choose another "
                f"--output, or delete '{self._path}' to begin anew."
            )


class SharedJournals:
    """The rows of several processes, each of which had every n-th photograph, in one order."""

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._journals = journals
        self.num_rows = sum(each.num_rows for each in journals)

    def rows(self) -> Iterator[Row]:
        """Yield the rows from the disk, one at a time."""
        for together in zip_longest(*(each.rows() for each in self._journals)):
            yield from (row for row in together if row is not None)

    def remove(self) -> None:
        """Remove the files, once the table is whole; the first one last."""
        for each in reversed(self._journals):
            each.remove()
