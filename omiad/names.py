"""Names that come from data: file names, categories and defects, which may hold anything."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

from omiad.errors import MOST_NAMED, InputError

LONGEST = 200
"""Most bytes of a category or defect; a file named after it stays within the system's 255."""


def printable(text: str) -> str:
    r"""Return text for a terminal, with every control or invisible character as an escape.

    A line break stays. ESC becomes "\\x1b", and a byte that is not UTF-8 becomes "\\udcff".
    """
    return "".join(
        each if each in "\n " or each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


def one_line(text: str) -> str:
    """Return `printable` text without line breaks: a name in a sentence or a table."""
    return printable(text).replace("\n", "\\n")


def first_of(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first of some names on one line, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(one_line, names[:most])) + more


def cell(text: str) -> str:
    """Return text for a cell of a CSV file that no spreadsheet takes for a formula.

    A leading = + - @, tab or line break gets an apostrophe before it (OWASP, "CSV Injection").
    """
    return f"'{text}" if text[:1] in tuple("=+-@\t\r\n") else text


def folded(name: str) -> str:
    """Return a name without case and spellings of accents, as many file systems compare names."""
    return unicodedata.normalize("NFC", name).casefold()


def is_below(name: str) -> bool:
    """Return whether a path stays below the folder that it is joined to, links aside."""
    path = PurePath(name)
    try:
        is_valid = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_valid = False
    return is_valid and bool(path.parts) and not path.anchor and ".." not in path.parts


def check_name(name: str, *, kind: str, where: object) -> str:
    """Return a category or defect that can be the name of a folder, as it is.

    Args:
        name: The name, from a folder or from a split file.
        kind: What it names, such as "category", for the message.
        where: The file or folder that holds it, for the message.

    Raises:
        InputError: If the name is empty, too long, or could lead out of a folder.
    """
    reason = None
    if not name or name in (".", "..") or name.strip() != name:
        reason = "it is empty, dots, or begins or ends with a space"
    elif "/" in name or "\\" in name:
        reason = "it holds a slash"
    elif any(unicodedata.category(each)[0] == "C" for each in name):
        reason = "it holds a control character or bytes that are not UTF-8"
    elif len(name.encode()) > LONGEST:
        reason = f"it has more than {LONGEST} bytes"
    if reason:
        raise InputError(
            f"'{one_line(name)}' in '{where}' cannot be the name of a {kind}: {reason}. Rename it."
        )
    return name
