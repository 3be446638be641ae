"""The file that pictures are made of: small maps, masks and names, and no photograph."""

import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.errors import BROKEN_ARCHIVE, InputError
from omiad.gallery.keeping import Kept
from omiad.types import Sample


class KeptImages(NamedTuple):
    """The images of a category as they are read back.

    Attributes:
        name: Path of each below the root of the data set (N,).
        defect: Name of its defect, "good" for a normal image (N,).
        score: Image scores (N,).
        level: Maps (N, h, w), uint8: 0 and 255 are the ends of the scale.
        mask: Defective pixels (N, S, S), bool.
        has_mask: Whether they are known (N,).
        reconstruction: What each is reconstructed to (N, h, w, 3), uint8; (N, 0, 0, 3) if unknown.
        reference: Path of a normal training image below the root (1,), empty if there is none.
    """

    name: NDArray[np.str_]
    defect: NDArray[np.str_]
    score: NDArray[np.float64]
    level: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    reconstruction: NDArray[np.uint8]
    reference: NDArray[np.str_]


def write_gallery(
    path: Path,
    kept: Sequence[Kept],
    samples: Sequence[Sample],
    *,
    root: Path,
    scale: Sequence[float],
    references: dict[str, str] | None = None,
) -> None:
    """Write what a test kept.

    Args:
        path: The file.
        kept: The images.
        samples: The test images, by their index.
        root: Folder of the data set.
        scale: Scores drawn as darkest and brightest.
        references: Path of a normal training image of each category below the root.
    """
    groups: dict[str, list[Kept]] = defaultdict(list)
    for image in kept:
        groups[samples[image.index].category].append(image)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for category, images in sorted(groups.items()):
            about = [samples[image.index] for image in images]
            columns = _columns(images, about, root, scale)
            columns["reference"] = np.array([(references or {}).get(category, "")], np.str_)
            for column, array in columns.items():
                with archive.open(f"{category}/{column}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def gallery_path(results: Path) -> Path:
    """Return where the maps kept of a results.json lie."""
    return results.with_suffix(".gallery.npz")


def read_gallery(path: Path) -> dict[str, KeptImages]:
    """Read what a test kept, by category; nothing where it kept nothing.

    Raises:
        InputError: If the file holds something else.
    """
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            categories = list(dict.fromkeys(key.rpartition("/")[0] for key in archive.files))
            return {
                category: KeptImages(*(archive[f"{category}/{f}"] for f in KeptImages._fields))
                for category in categories
            }
    except BROKEN_ARCHIVE as error:
        raise InputError(
            f"'{path}' cannot be read as the pictures of a test ({error}). Test again, or delete "
            f"the file: the report can be made without."
        ) from error


def _columns(
    images: Sequence[Kept], samples: Sequence[Sample], root: Path, scale: Sequence[float]
) -> dict[str, NDArray[Any]]:
    low, high = scale
    maps = np.stack([kept.anomaly_map for kept in images])
    side = max((kept.side for kept in images), default=0)
    unknown = np.zeros((side, side), np.bool_)
    pictures = [kept.reconstruction for kept in images]
    none = np.zeros((0, 0, 3), np.uint8)
    return {
        "name": np.array([sample.name(root) for sample in samples], np.str_),
        "defect": np.array([sample.defect for sample in samples], np.str_),
        "score": np.array([kept.score for kept in images]),
        "level": (np.clip((maps - low) / max(high - low, 1e-12), 0, 1) * 255)
        .round()
        .astype(np.uint8),
        "mask": np.stack([unknown if k.mask is None else _unpacked(k.mask, side) for k in images]),
        "has_mask": np.array([kept.mask is not None for kept in images]),
        "reconstruction": np.stack([none if p is None else p for p in pictures]),
    }


def _unpacked(bits: NDArray[np.uint8], side: int) -> NDArray[np.bool_]:
    pixels = np.unpackbits(bits, count=side * side).astype(np.bool_)
    return np.asarray(pixels.reshape(side, side))
