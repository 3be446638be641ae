"""Which files below a folder are half-written although they have their final names."""

import csv
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from PIL import Image

UNFINISHED = re.compile(r"^\.|\.(part|new|tmp|lock)$|\.part\.|^lock$")
"""Names that say that a file is not final."""


def broken(folder: Path) -> list[str]:
    """Return the name of each file that cannot be read in full, and why."""
    found = []
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or any(map(UNFINISHED.search, below.parts)):
            continue
        read = READERS.get(path.suffix)
        if read is None:
            continue
        try:
            read(path)
        except Exception as error:
            found.append(f"{below} is half-written ({type(error).__name__})")
    return found


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if archive.testzip():
            raise ValueError("checksum")


def _checkpoint(path: Path) -> None:
    _archive(path)
    torch.load(path, weights_only=True)


def _picture(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def _table(path: Path) -> None:
    text = path.read_text()
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
        raise ValueError("cut")


def _page(path: Path) -> None:
    if not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("cut")


def _configuration(path: Path) -> None:
    if not isinstance(yaml.safe_load(path.read_text()), dict):
        raise TypeError("cut")


def _json(path: Path) -> None:
    json.loads(path.read_text())


READERS: dict[str, Callable[[Path], None]] = {
    ".ckpt": _checkpoint,
    ".csv": _table,
    ".html": _page,
    ".jpg": _picture,
    ".json": _json,
    ".npz": _archive,
    ".png": _picture,
    ".yaml": _configuration,
}
