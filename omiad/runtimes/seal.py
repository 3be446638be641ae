"""The end of an exported file: a SHA-256 of all that comes before, and of the file beside it."""

import hashlib
import re
from typing import NamedTuple

from omiad.errors import InputError


class Seal(NamedTuple):
    """What stands before and after the digest, so that the file keeps its format."""

    before: bytes
    after: bytes


SEALS = {
    # Field 14 of ONNX's ModelProto, 80 bytes: a pair of a key (12 bytes) and a value (64 bytes).
    ".onnx": Seal(b"\x72\x50\x0a\x0comiad.digest\x12\x40", b""),
    ".xml": Seal(b"\n<!-- omiad digest: ", b" -->\n"),
}
"""The seal of each kind of file, by its suffix."""


def sealed(content: bytes, suffix: str, *, beside: bytes = b"") -> bytes:
    """Return the content of a file with its digest, which covers the file beside it too."""
    before, after = SEALS[suffix]
    return content + before + _digest(content, beside) + after


def check_seal(content: bytes, suffix: str, *, beside: bytes = b"", name: str) -> None:
    """Refuse a file that is not as it was written.

    The digest reveals damage. Whoever changes an export on purpose can write a new digest.

    Raises:
        InputError: If the file has no digest, or another one; messages call the file by the name.
    """
    before, after = (re.escape(part) for part in SEALS[suffix])
    found = re.search(before + b"([0-9a-f]{64})" + after + rb"\Z", content[-200:])
    if found is None:
        raise InputError(
            f"{name} is no export of omiad, or its end is missing. Give a file that `omiad export` "
            f"wrote."
        )
    length = len(content) - len(found[0])
    if found[1] != _digest(content[:length], beside):
        raise InputError(
            f"{name} is damaged: its contents differ from the digest they were written with. Copy "
            f"the file again, or export the model again."
        )


def _digest(content: bytes, beside: bytes) -> bytes:
    digest = hashlib.sha256(b"%d " % len(content))
    digest.update(content)
    digest.update(beside)
    return digest.hexdigest().encode()
