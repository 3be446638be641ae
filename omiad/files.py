"""Files that are there whole or not at all, whenever a process dies."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text beside its place, and move it there when it is on disk.

    Args:
        path: Its place; what is there is replaced.
        text: All of it.

    Raises:
        OSError: If the disk is full or may not be written; what was there stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
