"""Atomic writes: a file is complete or unchanged, even if the process dies."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically: write a temporary file next to it, sync it, and rename it.

    Args:
        path: The file, which is replaced if it exists.
        text: Its whole content.

    Raises:
        OSError: If the disk is full or the folder is not writable. An existing file stays intact.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
