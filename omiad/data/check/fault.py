"""A fault of a data set."""

from typing import Literal, NamedTuple

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
