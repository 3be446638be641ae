"""A fault of a data set."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from omiad.errors import MOST_NAMED
from omiad.names import one_line

Level = Literal["error", "warning", "note"]


class Fault(NamedTuple):
    """A fault of a data set.

    An error makes results wrong or stops a run, a warning may mislead, a note needs no action.
    """

    level: Level
    kind: str
    where: str  # path below the root, or a category
    what: str
    fix: str = ""  # what to do; empty for notes
    files: tuple[str, ...] = ()  # paths below the root of all files, where `what` names some


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, and the number of the others."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(map(one_line, names[:MOST_NAMED])) + more
