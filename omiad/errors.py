"""Errors that a user can fix; the command line prints their message without a traceback."""

import zipfile
import zlib

BROKEN_ARCHIVE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""The errors that numpy raises for a broken npz file."""


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
