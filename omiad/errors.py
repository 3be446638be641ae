"""Errors that a user can mend; the command line prints their sentence without a traceback."""

import zipfile
import zlib

BROKEN_ARCHIVE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy reports a broken npz by."""


class InputError(ValueError):
    """Something given to omiad is wrong; the message says what, where and how to mend it."""


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that omiad was given does not exist."""

    def __str__(self) -> str:
        """Return the sentence; OSError would otherwise format its own."""
        return str(self.args[0])
