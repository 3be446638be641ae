"""Errors that a user can fix; the command line prints their message without a traceback."""

from collections.abc import Sequence


class InputError(ValueError):
    """An input is wrong; the message says what is wrong, where, and how to fix it."""


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that the user named does not exist."""

    def __str__(self) -> str:
        """Return the message; OSError would format one of its own."""
        return str(self.args[0])


class NotFiniteError(InputError):
    """A score is NaN or infinite; `index` is the position of the image in its batch."""

    def __init__(self, message: str, *, index: int) -> None:
        super().__init__(message)
        self.index = index


MOST_NAMED = 10
"""Most faults of one kind that a message names."""


def together(faults: Sequence[InputError]) -> InputError:
    """Return one error for one or more faults: their number, and the sentences of the first ten."""
    if len(faults) == 1:
        return faults[0]
    lines = "\n  ".join(str(fault) for fault in faults[:MOST_NAMED])
    more = len(faults) - MOST_NAMED
    rest = f"\n  and {more} more; `omiad data check` lists all of a data set." if more > 0 else ""
    return InputError(f"{len(faults)} files cannot be used:\n  {lines}{rest}")
