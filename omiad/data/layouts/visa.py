"""The layouts of VisA: the original download, and two trees that others prepare from it.

The download is split by `split_csv/1cls.csv` (Zou et al. 2022, spot-diff):

    <root>/split_csv/1cls.csv                        object,split,label,image,mask
    <root>/<category>/Data/Images/Normal/0000.JPG
    <root>/<category>/Data/Images/Anomaly/000.JPG
    <root>/<category>/Data/Masks/Anomaly/000.png     number of the kind of defect, 0 for none

Prepared trees have the layout of MVTec AD, with masks named like their images:

    <root>/1cls/<category>/train/good/0000.JPG       spot-diff
    <root>/visa_pytorch/<category>/train/good/...    anomalib
"""

import csv
from pathlib import Path

from omiad.data.layouts import mvtec
from omiad.data.layouts.listing import check_root, folders
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

SPLIT = "split_csv/1cls.csv"
"""The official split of the download for training without defects."""

PREPARED = ("1cls", "visa_pytorch", "VisA_pytorch")
"""Folders around the categories in prepared trees."""

_COLUMNS = ("object", "split", "label", "image", "mask")


def matches(root: Path) -> bool:
    """Return whether a folder looks like VisA."""
    return (
        (root / SPLIT).is_file()
        or any((root / name).is_dir() for name in PREPARED)
        or any((folder / "Data" / "Images").is_dir() for folder in folders(root))
    )


def index(root: Path) -> list[Sample]:
    """List the images by category, training before test, label, and file name.

    In the original download the split file names each image, its label and its mask.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is no split file and no prepared tree, or the split file is broken.
    """
    check_root(root)
    if (root / SPLIT).is_file():
        return _original(root)
    for name in PREPARED:
        if (root / name).is_dir():
            return index(root / name)
    if any((folder / "Data").is_dir() for folder in folders(root)):
        raise InputError(
            f"'{root}' is VisA as downloaded, but '{SPLIT}' is missing. Copy the folder split_csv "
            f"from the official archive or repository (amazon-science/spot-diff)."
        )
    return mvtec.index(root)


def _original(root: Path) -> list[Sample]:
    path = root / SPLIT
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
            raise InputError(
                f"'{path}' has no column {', '.join(missing)}. Copy the file from the official "
                f"archive; its columns are {', '.join(_COLUMNS)}."
            )
        samples = [_sample(root, row, f"line {rows.line_num} of '{path}'") for row in rows]
    if not any(sample.split == "train" for sample in samples):
        raise InputError(
            f"'{path}' lists no training image. Copy the file from the official archive."
        )
    return sorted(samples, key=lambda s: (s.category, s.split == "test", s.defect, s.image.name))


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    split, label = row["split"], row["label"]
    image, mask = root / row["image"], root / row["mask"] if row["mask"] else None
    if label == "normal" and split == "train":
        return Sample(image, None, row["object"], NORMAL, "train")
    if label == "normal" and split == "test":
        return Sample(image, None, row["object"], NORMAL, "test")
    if label == "anomaly" and split == "test":
        return Sample(image, mask, row["object"], label, "test")
    raise InputError(
        f"In {where} the split is '{split}' and the label is '{label}'. Expected train,normal or "
        f"test,normal or test,anomaly. Copy the file from the official archive."
    )
