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

from pathlib import Path
from typing import Literal

from omiad.data.layouts import mvtec
from omiad.data.layouts.listing import folders
from omiad.data.layouts.splits import read_rows
from omiad.errors import InputError
from omiad.names import one_line
from omiad.types import NORMAL, Sample

SPLIT = "split_csv/1cls.csv"  # the official split for training without defects
PREPARED = ("1cls", "visa_pytorch", "VisA_pytorch")  # folders around prepared categories
_COLUMNS = ("object", "split", "label", "image", "mask")
_DEFECTS = {("train", "normal"): NORMAL, ("test", "normal"): NORMAL, ("test", "anomaly"): "anomaly"}


def matches(root: Path) -> bool:
    """Return whether a folder looks like VisA."""
    return (
        (root / SPLIT).is_file()
        or any((root / name).is_dir() for name in PREPARED)
        or any((folder / "Data" / "Images").is_dir() for folder in folders(root))
    )


def index(root: Path, *, for_test: bool = False) -> list[Sample]:
    """List the images by category, training before test, label, and file name.

    With `for_test` the training images are not needed.
    """
    if (root / SPLIT).is_file():
        return _original(root, for_test=for_test)
    for name in PREPARED:
        if (root / name).is_dir():
            return index(root / name, for_test=for_test)
    if any((folder / "Data").is_dir() for folder in folders(root)):
        raise InputError(
            f"'{root}' is VisA as downloaded, but '{SPLIT}' is missing. Copy the folder split_csv "
            f"from the official archive or repository (amazon-science/spot-diff)."
        )
    return mvtec.index(root, for_test=for_test)


def _original(root: Path, *, for_test: bool) -> list[Sample]:
    path = root / SPLIT
    samples = [_sample(root, row, where) for where, row in read_rows(path, _COLUMNS)]
    if not (for_test or any(sample.split == "train" for sample in samples)):
        raise InputError(
            f"'{path}' lists no training image. Copy the file from the official archive."
        )
    return sorted(samples, key=lambda s: (s.category, s.split == "test", s.defect, s.image.name))


def _sample(root: Path, row: dict[str, str], where: str) -> Sample:
    split, label = row["split"], row["label"]
    defect = _DEFECTS.get((split, label))
    if defect is None:
        raise InputError(
            f"In {where} the split is '{one_line(split)}' and the label is '{one_line(label)}'. "
            f"Expected train,normal or test,normal or test,anomaly. Copy the file from the "
            f"official archive."
        )
    masks = (root / row["mask"],) if row["mask"] and defect != NORMAL else ()
    part: Literal["train", "test"] = "train" if split == "train" else "test"
    return Sample(root / row["image"], masks, row["object"], defect, part)
