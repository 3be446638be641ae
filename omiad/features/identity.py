"""How an image file is recognised as the one whose features were computed.

Features belong to the content of a file, which is known by its SHA-256. Hashing every image at each
start would be slow, so a stamp stands in for the content: size, modification time, change time
and inode. The file system sets the change time at every write and replacement, even if a program
restores the modification time. Equal stamps therefore mean equal content. If the stamps differ, the
contents are compared, so that a copy, a `touch` or another mount computes nothing again.
"""

import os
import time
from pathlib import Path

from omiad.errors import InputError
from omiad.files import check_regular, digest

_COARSEST_TICK_NS = 2 * 10**9  # of FAT; other file systems are finer
_EXFAT_TICK_NS = 10**7  # finer than that of FAT
_HAS_CHANGE_TIME = os.name != "nt"  # on Windows, `st_ctime` is the time of creation


def stamp_of(path: Path) -> str:
    """Return size, times and inode of a file, or "" if they may not reveal the next change.

    A change within the same tick of the file system's clock would not be revealed (git calls such
    files "racily clean").
    """
    stat = check_regular(path)
    age = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns)
    # FAT and exFAT give the time of modification in place of the change time, in coarse steps, and
    # number their files anew at each mount: two cards may show equal stamps of unequal files.
    has_change_time = stat.st_ctime_ns != stat.st_mtime_ns or stat.st_ctime_ns % _EXFAT_TICK_NS
    if age < _COARSEST_TICK_NS or not (_HAS_CHANGE_TIME and has_change_time):
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def content_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal.

    Raises:
        InputError: If the file cannot be read.
    """
    check_regular(path)
    try:
        return digest(path)
    except OSError as error:
        raise InputError(
            f"'{path}' cannot be read ({error.strerror}). Mend or remove it."
        ) from error
