"""The vocabulary that the rooms of omiad share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor

NORMAL = "good"
"""The defect name of an image without defect, as the MVTec layout spells it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a data set, as its index lists it; no pixel has been read.

    Attributes:
        image: Path of the image file.
        masks: Paths of the defect masks, which are united; empty where there is none.
        category: Product the image shows, the name of its folder.
        defect: Name of the defect, "good" for a normal image.
        split: The split the layout puts the image in.
        sample_id: Name of the part where several views show one, as in Real-IAD.
        view: Number of the view, from 1.
    """

    image: Path
    masks: tuple[Path, ...]
    category: str
    defect: str
    split: Literal["train", "test"]
    sample_id: str | None = None
    view: int | None = None

    @property
    def is_anomalous(self) -> bool:
        """Label of the image, from the index and never from a resized mask."""
        return self.defect != NORMAL

    def name(self, root: Path) -> str:
        """Path of the image below the root of its data set, with forward slashes."""
        return self.image.relative_to(root).as_posix()


class Labels(NamedTuple):
    """The labels of the images of a batch.

    Attributes:
        is_anomalous: Image labels (B,), bool.
        masks: Labels of the pixels (B, H, W), uint8 or bool: 0 is normal and 1 defective. 2 is
            unknown: a defect that is too small for this size. All are 0 where `has_mask` is False.
        has_mask: Whether the labels of the pixels are known (B,), bool. They are known for a normal
            image, which has no defective pixel, and for a defective image with a mask file.
        index: Position of each sample in the list of its split (B,), int64.
        num_vanished: Regions of each mask that are too small for this size (B,), int64.
    """

    is_anomalous: Tensor
    masks: Tensor
    has_mask: Tensor
    index: Tensor  # type: ignore[assignment] # shadows tuple.index, which is unused
    num_vanished: Tensor


class ImageBatch(NamedTuple):
    """Photographs to score.

    Attributes:
        images: RGB pixels (B, 3, H, W), uint8, of the canvas of each photograph.
        labels: What is known about the images.
    """

    images: Tensor
    labels: Labels


class ScoringBatch(NamedTuple):
    """Backbone features to score, as a test step takes them.

    Attributes:
        features: Raw features (B, C, h, w), half precision.
        labels: What is known about the images.
    """

    features: Tensor
    labels: Labels


class FeatureBatch(NamedTuple):
    """Backbone features of tiles of training images.

    Attributes:
        features: Raw features (B, C, h, w), half precision as cached.
        index: Position of each tile among those of the training list (B,), int64.
        category: Index into the sorted list of categories (B,), int64.
    """

    features: Tensor
    index: Tensor  # type: ignore[assignment] # shadows tuple.index, which is unused
    category: Tensor


class Assessment(NamedTuple):
    """What the detector finds in a batch of images, before anything is decided.

    Attributes:
        score: Image scores (B,), float32.
        anomaly_map: Pixel scores (B, H, W), float32, at the size of the canvas.
        shown: Numbers of the products that the images show (B,), int64; negative if unknown.
    """

    score: Tensor
    anomaly_map: Tensor
    shown: Tensor


class Prediction(NamedTuple):
    """What the detector says about a batch of images; higher is more anomalous, no fixed range.

    Attributes:
        score: Image scores (B,), float32.
        anomaly_map: Pixel scores (B, H, W), float32, at the size of the canvas.
    """

    score: Tensor
    anomaly_map: Tensor
