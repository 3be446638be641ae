"""The file beside results.json that pictures are drawn from: small maps, masks and names."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.errors import BROKEN_ARCHIVE, InputError
from omiad.report.kept import Kept
from omiad.report.pictures import scaled
from omiad.types import Sample


class StoredImages(NamedTuple):
    """The kept images of one category, as they are read back.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        defect: Name of its defect, "good" for a normal image (N,).
        score: Image scores (N,).
        level: Maps (N, h, w), uint8: 0 and 255 are the ends of the colour scale.
        mask: Defective pixels (N, S, S), bool.
        has_mask: Whether the defective pixels are known (N,).
        reconstruction: Reconstructions (N, h, w, 3), uint8; (N, 0, 0) without a decoder.
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


def gallery_path(results: Path) -> Path:
    """Return the path of the kept images of a results.json."""
    return results.with_suffix(".gallery.npz")


def write_gallery(
    path: Path,
    kept: Sequence[Kept],
    samples: Sequence[Sample],
    *,
    root: Path,
    scale: Sequence[float],
    references: Mapping[str, str] | None = None,
) -> None:
    """Write the images that a test kept, with the scores of the darkest and the brightest colour.

    The samples are all test images, by index. The references are a normal training image of each
    category, as a path below the root of the data set.
    """
    groups: dict[str, list[Kept]] = defaultdict(list)
    for image in kept:
        groups[samples[image.index].category].append(image)
    columns = dict[str, Any]()
    for category, images in sorted(groups.items()):
        about = [samples[image.index] for image in images]
        level = scaled(np.stack([image.anomaly_map for image in images]), scale) * 255
        stored = StoredImages(
            name=np.array([sample.name(root) for sample in about], np.str_),
            defect=np.array([sample.defect for sample in about], np.str_),
            score=np.array([image.score for image in images]),
            level=level.round().astype(np.uint8),
            mask=_stacked([image.mask for image in images], np.bool_),
            has_mask=np.array([image.mask is not None for image in images]),
            reconstruction=_stacked([image.reconstruction for image in images], np.uint8),
            reference=np.array([(references or {}).get(category, "")], np.str_),
        )
        columns |= {f"{category}/{name}": array for name, array in stored._asdict().items()}
    np.savez_compressed(path, **columns)


def read_gallery(path: Path) -> dict[str, StoredImages]:
    """Read the images that a test kept, by category; empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {
                category: StoredImages(*(archive[f"{category}/{f}"] for f in StoredImages._fields))
                for category in dict.fromkeys(key.rpartition("/")[0] for key in archive.files)
            }
    except BROKEN_ARCHIVE as error:
        raise InputError(
            f"'{path}' does not hold the kept images of a test ({error}). Repeat the test, or "
            f"delete the file to report without pictures."
        ) from error


def _stacked(arrays: Sequence[NDArray[Any] | None], dtype: type[np.generic]) -> NDArray[Any]:
    """Stack arrays of one shape; those that are None become zeros."""
    known = [array for array in arrays if array is not None]
    missing = np.zeros_like(known[0]) if known else np.zeros((0, 0), dtype)
    return np.stack([missing if array is None else array for array in arrays])
