"""Photographs with their labels, the items of a test; and writing an image."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from omiad.data.masks import load_mask
from omiad.data.packing import PackedSamples
from omiad.photographs import WHITE_LEVEL, read_image
from omiad.protocols import UNIAD
from omiad.tiling import WHOLE, Tiles, Tiling
from omiad.types import ImageBatch, Labels, Sample, ScoringBatch

# Labels the pixels of a mask (H, W), bool, at the size of the anomaly map, and counts the regions
# that vanish there; see `Labels`.
PrepareMask = Callable[[NDArray[np.bool_]], tuple[Tensor, int]]


def save_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write pixels (H, W) or (H, W, 3) as an image file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@dataclass(eq=False)
class ImageDataset(Dataset[ImageBatch | ScoringBatch]):
    """Photographs with their labels, in the order of the samples.

    An item is an `ImageBatch` without the batch axis. If the features of the samples are given, it
    is a `ScoringBatch`. Masks are square, with the longer side of the canvas; without
    `prepare_mask` they are resized like `read_mask`.
    """

    samples: Sequence[Sample]
    image_size: int
    _: KW_ONLY
    prepare_mask: PrepareMask | None = None
    features: Dataset[Tensor] | None = None
    tiles: Tiles = WHOLE
    white_level: int = WHITE_LEVEL

    def __post_init__(self) -> None:
        if not isinstance(self.samples, PackedSamples):
            self.samples = PackedSamples(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageBatch | ScoringBatch:
        sample, size = self.samples[index], max(Tiling(self.tiles, self.image_size).canvas)
        resized = replace(UNIAD, input_size=size, map_size=size, pool_size=1)
        prepare_mask = self.prepare_mask or resized.label_mask
        if sample.masks:
            mask, num_vanished = prepare_mask(load_mask(sample.masks, image=sample.image))
        else:
            mask, num_vanished = torch.zeros(size, size, dtype=torch.uint8), 0
        labels = Labels(
            is_anomalous=torch.tensor(sample.is_anomalous),
            masks=mask,
            has_mask=torch.tensor(bool(sample.masks) or not sample.is_anomalous),
            index=torch.tensor(index),
            num_vanished=torch.tensor(num_vanished),
        )
        if self.features is not None:
            return ScoringBatch(self.features[index], labels)
        image = read_image(
            sample.image, self.image_size, tiles=self.tiles, white_level=self.white_level
        )
        return ImageBatch(image, labels)
