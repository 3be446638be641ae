"""The layouts of VisA: as it is downloaded, and the two trees that others prepare from it.

Raw, split by `split_csv/1cls.csv` (Zou et al. 2022, spot-diff):

    <root>/split_csv/1cls.csv                        object,split,label,image,mask
    <root>/<category>/Data/Images/Normal/0000.JPG
    <root>/<category>/Data/Images/Anomaly/000.JPG
    <root>/<category>/Data/Masks/Anomaly/000.png     numbers of defect kinds, 0 is none

Prepared, in the layout of MVTec AD with masks called like their images:

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
"""The official split of the raw download for training without defects."""

PREPARED = ("1cls", "visa_pytorch", "VisA_pytorch")
"""Folders that prepared trees put around the categories."""

_COLUMNS = ("object", "split", "label", "image", "mask")


def matches(root: Path) -> bool:
    """Whether a folder looks like VisA."""
    return (
        (root / SPLIT).is_file()
        or any((root / name).is_dir() for name in PREPARED)
        or any((folder / "Data" / "Images").is_dir() for folder in folders(root))
    )


def index(root: Path) -> list[Sample]:
    """List the images: by category, train before test, by label, by file name.

    The label and both paths of a raw image come from the split file.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If there is neither a split file nor a prepared tree, or the file is broken.
    """
    check_root(root)
    if (root / SPLIT).is_file():
        return _raw(root)
    for name in PREPARED:
        if (root / name).is_dir():
            return index(root / name)
    if any((folder / "Data").is_dir() for folder in folders(root)):
        raise InputError(
            f"'{root}' is VisA as downloaded, but '{SPLIT}' is missing. Put the folder split_csv "
            f"of the official archive or repository (amazon-science/spot-diff) there."
        )
    return mvtec.index(root)


def _raw(root: Path) -> list[Sample]:
    path = root / SPLIT
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
            raise InputError(
                f"'{path}' has no column {', '.join(missing)}. Take the file of the official "
                f"archive; its columns are {', '.join(_COLUMNS)}."
            )
        samples = [_sample(root, row, f"line {rows.line_num} of '{path}'") for row in rows]
    if not any(sample.split == "train" for sample in samples):
        raise InputError(f"'{path}' lists no training image. Take the file of the archive.")
    return sorted(samples, key=_place)


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    split, label = row["split"], row["label"]
    if label == "normal" and split in ("train", "test"):
        mask, defect = None, NORMAL
    elif label == "anomaly" and split == "test":
        mask, defect = (root / row["mask"] if row["mask"] else None), label
    else:
        raise InputError(
            f"In {where} the split is '{split}' and the label '{label}'. Expected train or test, "
            f"normal or anomaly, and no anomaly in train; take the file of the official archive."
        )
    return Sample(
        image=root / row["image"],
        mask=mask,
        category=row["object"],
        defect=defect,
        split="train" if split == "train" else "test",
    )


def _place(sample: Sample) -> tuple[str, bool, bool, str]:
    return sample.category, sample.split == "test", not sample.is_anomalous, sample.image.name
