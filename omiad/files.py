"""Files and folders that are whole or not there, even if the process dies or the disk is full."""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from omiad.errors import InputError, MissingInputError

try:
    import fcntl
except ImportError:  # Windows: two processes must not write to the same folder or cache at once
    fcntl = None  # type: ignore[assignment]

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the system that mean a full disk or a used-up quota."""

MARGIN = 1 << 20
"""Free bytes below which a disk counts as full."""

_BLOCK = 1 << 20
"""Bytes that are hashed at once."""

LARGEST = 4 * 2**30
"""Most bytes of an input file; an image with as many pixels as Pillow allows takes less."""


def check_regular(path: Path) -> os.stat_result:
    """Return the state of a file, unless reading it could wait or go on for ever.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If it is a folder, a pipe, a device or a socket, cannot be reached, or has more
            than 4 GiB.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError as error:
        raise MissingInputError(
            f"The file '{path}' is gone. Put it back, or start again without it."
        ) from error
    except OSError as error:  # a loop of links, a folder without permission
        raise InputError(
            f"'{path}' cannot be read ({error.strerror}). Correct or remove it."
        ) from error
    if not stat.S_ISREG(state.st_mode):
        raise InputError(f"'{path}' is a folder, a pipe or a device, but not a file. Remove it.")
    if state.st_size > LARGEST:
        raise InputError(f"'{path}' has {state.st_size / 2**30:.0f} GiB. Give a smaller file.")
    return state


def expanded(path: str | Path) -> Path:
    """Return a path with the home folder in place of ~; the ~name of an unknown user stays."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError for such a name


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Args:
        path: The file, which is replaced if it exists.
        content: Its whole content; text becomes UTF-8.

    Raises:
        InputError: If the disk is full. An existing file stays intact.
        OSError: If the folder is not writable. An existing file stays intact.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


@contextmanager
def whole_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename the file there once it is whole.

    The file is synced to the disk before it gets its name. If the block fails, the temporary file
    is removed and an existing file stays intact. Without `sync` the file survives the death of the
    process, but not of the machine, and many small files are written faster.

    Raises:
        InputError: If the disk is full.
    """
    temporary = path.with_name(f".{os.getpid()}.{path.name[:100]}.part")
    try:
        with full_disk_named(path):
            yield temporary
            if sync:
                _sync(temporary)
            os.replace(temporary, path)
            if sync:
                _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; rename it to `path` once everything in it is written.

    If the block fails, the new folder is removed. A folder that a killed process left is removed
    by the next process that writes the same `path`.

    Raises:
        InputError: If `path` exists and is not empty, or if the disk is full.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"'{path}' is not an empty folder. Choose another output folder.")
    if path.exists() and (os.path.ismount(path) or path.samefile(".")):
        raise InputError(f"'{path}' cannot be replaced by a finished folder. Choose a new folder.")
    temporary = path.parent / f".{path.name[:100]}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(temporary.with_suffix(".lock"), owner=path):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with full_disk_named(path):
                temporary.mkdir()
                yield temporary
                for file in temporary.rglob("*"):
                    if not file.is_symlink():
                        _sync(file)
            if path.is_dir():
                path.rmdir()
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def only_writer(lock: Path, *, owner: Path) -> Iterator[None]:
    """Hold a lock file while a command writes to the folder `owner`; the system frees it on death.

    Raises:
        InputError: If another process holds the lock.
    """
    with lock.open("a") as file:
        if not lock_file(file):
            raise InputError(
                f"Another process is writing to '{owner}'. Wait for its end, or choose another "
                f"output folder."
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def lock_beside(path: Path) -> Path:
    """Return the lock file of a file or a folder, which one process at a time may write."""
    place = path.resolve()
    return place.with_name(f".{place.name[:100]}.lock")


@contextmanager
def new_file(path: Path, *, option: str) -> Iterator[None]:
    """Claim a file that does not exist yet, so that no other process writes it meanwhile.

    Raises:
        InputError: If the file exists, or another process has claimed it.
        OSError: If its folder does not exist or is not writable.
    """
    with only_writer(lock_beside(path), owner=path):
        if path.exists():
            raise InputError(f"'{path}' already exists. Choose another {option}.")
        yield


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn the system's error for a full disk into a sentence that names `path`.

    Raises:
        InputError: If the disk is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError
        if not _is_full(error, path):
            raise
        raise InputError(
            f"The disk of '{path}' is full. Free some space, or choose a folder on another disk; "
            f"what was written before is intact."
        ) from error


def _is_full(error: OSError | RuntimeError, path: Path) -> bool:
    """Return whether an error means a full disk; numpy, Pillow and torch.save give no number."""
    number = getattr(error, "errno", None)
    if number is None and not isinstance(error, InputError):
        return shutil.disk_usage(path.parent).free < MARGIN
    return number in NO_SPACE


def lock_file(file: TextIO, *, wait: bool = False) -> bool:
    """Lock an open file; return whether this process has the lock of the file that has its name.

    The system frees the lock when the file is closed or the process dies. Without `wait`, the
    answer is False if another process has the lock.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        # The process that held the lock before may have removed the file in between.
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (BlockingIOError, FileNotFoundError):
        return False


def _sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
