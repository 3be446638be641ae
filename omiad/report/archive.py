"""The file beside results.json that pictures are drawn from: small maps, masks and names."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.arrays import Column, read_groups, write_groups
from omiad.errors import InputError
from omiad.files import digest
from omiad.names import check_name, is_below, one_line
from omiad.report.kept import Kept
from omiad.report.pictures import scaled
from omiad.types import Sample

MEND = "Repeat the test, or delete the file to report without pictures."


class StoredImages(NamedTuple):
    """The kept images of one category, as they are read back.

    Attributes:
        name: Path of each image below the root of the data set (N,).
        digest: SHA-256 of its file (N,): a report shows a photograph only if the test has seen it.
        defect: Name of its defect, "good" for a normal image (N,).
        score: Image scores (N,).
        level: Maps (N, H, W), uint8: 0 and 255 are the ends of the colour scale.
        mask: Defective pixels (N, S, S), bool.
        has_mask: Whether the defective pixels are known (N,).
        reconstruction: Reconstructions (N, h, w, 3), uint8; (N, 0, 0, 3) without a decoder.
        reference: Path of a normal training image below the root (1,), empty if there is none.
        reference_digest: SHA-256 of the file of the reference (1,).
    """

    name: NDArray[np.str_]
    digest: NDArray[np.str_]
    defect: NDArray[np.str_]
    score: NDArray[np.float64]
    level: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    has_mask: NDArray[np.bool_]
    reconstruction: NDArray[np.uint8]
    reference: NDArray[np.str_]
    reference_digest: NDArray[np.str_]


_COLUMNS = {
    "name": Column("U", ("N",)),
    "digest": Column("U", ("N",)),
    "defect": Column("U", ("N",)),
    "score": Column("f8", ("N",)),
    "level": Column("u1", ("N", "H", "W")),
    "mask": Column("?", ("N", "s", "s")),
    "has_mask": Column("?", ("N",)),
    "reconstruction": Column("u1", ("N", "h", "w", 3)),
    "reference": Column("U", (1,)),
    "reference_digest": Column("U", (1,)),
}


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

    def stored() -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
        for category, images in sorted(groups.items()):
            about = [samples[image.index] for image in images]
            reference = (references or {}).get(category, "")
            level = scaled(np.stack([image.anomaly_map for image in images]), scale) * 255
            columns = StoredImages(
                name=np.array([sample.name(root) for sample in about], np.str_),
                digest=np.array([_digest(sample.image) for sample in about]),
                defect=np.array([sample.defect for sample in about], np.str_),
                score=np.array([image.score for image in images]),
                level=level.round().astype(np.uint8),
                mask=_stacked([image.mask for image in images], np.zeros((0, 0), np.bool_)),
                has_mask=np.array([image.mask is not None for image in images]),
                reconstruction=_stacked(
                    [image.reconstruction for image in images], np.zeros((0, 0, 3), np.uint8)
                ),
                reference=np.array([reference], np.str_),
                reference_digest=np.array([_digest(root / reference) if reference else ""]),
            )
            yield category, columns._asdict()

    write_groups(path, stored())


def read_gallery(path: Path) -> dict[str, StoredImages]:
    """Read the images that a test kept, by category; empty if there is no file.

    Raises:
        InputError: If the file is broken, or names a file outside the data set.
    """
    if not path.is_file():
        return {}
    groups = read_groups(path, _COLUMNS, mend=MEND)
    found = {category: StoredImages(**arrays) for category, arrays in groups}
    for images in found.values():
        for defect in images.defect.tolist():
            check_name(defect, kind="defect", where=path)
        for name in (*images.name.tolist(), *filter(None, images.reference.tolist())):
            if not is_below(name):
                raise InputError(
                    f"'{path}' names '{one_line(name)}', which is outside the data set. {MEND}"
                )
        if images.has_mask.any() and not images.mask.size:
            raise InputError(f"'{path}' has not the masks that it announces. {MEND}")
    return found


def _digest(path: Path) -> str:
    """Return the SHA-256 of a photograph; none for one that is gone, so that its test is not."""
    try:
        return digest(path)
    except OSError:
        return ""


def _stacked(arrays: Sequence[NDArray[Any] | None], nothing: NDArray[Any]) -> NDArray[Any]:
    """Stack arrays of one shape; those that are None become zeros, or nothing if all are None."""
    known = [array for array in arrays if array is not None]
    missing = np.zeros_like(known[0]) if known else nothing
    return np.stack([missing if array is None else array for array in arrays])
