"""Photographs as arrays and tensors of 8-bit RGB, and the items of a test."""

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
from omiad.data.opening import has_wide_colour, opened, upright
from omiad.data.packing import PackedSamples
from omiad.errors import InputError
from omiad.features.extractor import WHITE_LEVEL
from omiad.protocols import UNIAD
from omiad.tiling import WHOLE, Tiles, Tiling
from omiad.types import ImageBatch, Labels, Sample, ScoringBatch

# Labels the pixels of a mask (H, W), bool, at the size of the anomaly map, and counts the regions
# that vanish there; see `Labels`.
PrepareMask = Callable[[NDArray[np.bool_]], tuple[Tensor, int]]


def read_image(
    path: Path, size: int, *, tiles: Tiles = WHOLE, white_level: int = WHITE_LEVEL
) -> Tensor:
    """Read a photograph as 8-bit RGB and resize it, bilinear, to a square or a canvas of tiles.

    The result is (3, size, size), or (3, H, W) with the height and width of `Tiling.canvas`.
    The EXIF orientation is applied. Grayscale is repeated to three channels. 16-bit grayscale is
    scaled from 0..white_level to 0..255; 16-bit colour keeps its high byte. Palettes and CMYK are
    converted to RGB. Transparency is dropped and the stored colour is kept. Only the first page of
    a file is read. The aspect ratio is not kept, as in the protocols of MVTec AD. JPEG is decoded
    at full size; draft mode would take half of the time but change pixels by up to two levels.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If `opened` refuses the file, it has floating-point pixels, it has 16-bit colour
            and a white level is given, or it is too small for the tiles.
    """
    image, tiling = _read_rgb(path, white_level), Tiling(tiles, size)
    tiling.check(*image.size, path)
    resized = image.resize(tiling.canvas[::-1], Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def load_image(path: Path, *, white_level: int = WHITE_LEVEL) -> NDArray[np.uint8]:
    """Read a photograph (H, W, 3) at its own size; otherwise like `read_image`."""
    return np.array(_read_rgb(path, white_level))


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


def _read_rgb(path: Path, white_level: int) -> Image.Image:
    with opened(path) as file:
        if white_level != WHITE_LEVEL and has_wide_colour(file):
            raise InputError(
                f"'{path}' has 16-bit colour, of which only the high byte can be read, so "
                f"--data.white_level {white_level} cannot apply. Convert the image to 8 bits."
            )
        image = upright(file)
        if image.mode == "F":
            raise InputError(
                f"'{path}' has floating-point pixels of unknown range. Convert it to 8 or 16 bits."
            )
        if image.mode.startswith("I"):  # 16 bits; Pillow opens some such files with 32-bit pixels
            wide = np.asarray(image).astype(np.float64).clip(0, white_level)
            image = Image.fromarray((wide / (white_level / 255)).round().astype(np.uint8))
        if image.mode == "P":  # a transparent palette that becomes RGB at once makes Pillow warn
            image = image.convert("RGBA")
        return image.convert("RGB")
