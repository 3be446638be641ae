"""Image files to tensors: photographs as uint8 RGB, defect masks as bool."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from omiad.data.packing import packed
from omiad.errors import InputError, MissingInputError
from omiad.types import ImageBatch, Labels, Sample, ScoringBatch

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of image files, in lower case; compared without regard to case."""

PrepareMask = Callable[[NDArray[np.bool_]], Tensor]
"""Brings a mask (H, W) to the side at which it is compared, bool."""

_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


def read_image(path: Path, size: int) -> Tensor:
    """Read a photograph as 8-bit RGB and resize it, bilinear, to a square.

    The EXIF orientation is applied. Grayscale is repeated to three channels; 16-bit grayscale is
    scaled from 0..65535 to 0..255, of 16-bit colour the high byte counts. Palettes and CMYK are
    converted. Transparency is dropped: the stored colour counts. Of several pages the first is
    read. Aspect ratio is not kept, as in the protocols of MVTec AD. JPEG is decoded at full size:
    its draft mode would save half of the time, and change pixels by up to two levels.

    Args:
        path: Image file.
        size: Side of the result in pixels.

    Returns:
        Pixels (3, size, size), uint8.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If it is corrupt, truncated, holds floating-point pixels, or has more than 179
            million pixels (Pillow's limit against decompression bombs).
    """
    resized = _read_rgb(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def load_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph (H, W, 3) at its own size, under the conditions of `read_image`."""
    return np.array(_read_rgb(path))


def read_mask(path: Path, size: int, *, image: Path) -> Tensor:
    """Read a defect mask and resize it, nearest, to a square; every pixel but black is defective.

    Binarised before it is resized, so that masks of class numbers (1, 2, ...) count like 255.

    Args:
        path: Mask file.
        size: Side of the result in pixels.
        image: The photograph the mask belongs to; only its header is read.

    Returns:
        Mask (size, size), bool.

    Raises:
        MissingInputError: If a file does not exist.
        InputError: If a file is corrupt, or mask and image differ in size.
    """
    binary = Image.fromarray(load_mask(path, image=image).astype(np.uint8))
    resized = binary.resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized)) != 0


def load_mask(path: Path, *, image: Path) -> NDArray[np.bool_]:
    """Read a defect mask (H, W) at its own size, under the conditions of `read_mask`."""
    with _opened(path) as opened:
        defective = _defective(ImageOps.exif_transpose(opened))
    with _opened(image) as opened:
        width, height = opened.size
        if opened.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width, height = height, width
    if defective.shape != (height, width):
        raise InputError(
            f"The mask '{path}' is {defective.shape[1]} x {defective.shape[0]} pixels, but its "
            f"image '{image}' is {width} x {height}. Give the mask its image's size."
        )
    return defective


class ImageDataset(Dataset[ImageBatch | ScoringBatch]):
    """Photographs of samples with what is known about them.

    An item is an `ImageBatch` without the batch axis; if features are given, a `ScoringBatch`.

    Args:
        samples: What to read, in this order.
        image_size: Side of images and masks in pixels.
        prepare_mask: Brings a mask (H, W) to that size; by default as `read_mask` does.
        features: Features of the samples, given out in place of their pixels.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        image_size: int,
        *,
        prepare_mask: PrepareMask | None = None,
        features: Dataset[Tensor] | None = None,
    ) -> None:
        self.samples = packed(samples)
        self.image_size = image_size
        self.prepare_mask = prepare_mask
        self.features = features

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageBatch | ScoringBatch:
        sample, size = self.samples[index], self.image_size
        if sample.mask is None:
            mask = torch.zeros(size, size, dtype=torch.bool)
        elif self.prepare_mask is None:
            mask = read_mask(sample.mask, size, image=sample.image)
        else:
            mask = self.prepare_mask(load_mask(sample.mask, image=sample.image))
        labels = Labels(
            is_anomalous=torch.tensor(sample.is_anomalous),
            masks=mask,
            has_mask=torch.tensor(sample.mask is not None or not sample.is_anomalous),
            index=torch.tensor(index),
        )
        if self.features is not None:
            return ScoringBatch(self.features[index], labels)
        return ImageBatch(read_image(sample.image, size), labels)


def _read_rgb(path: Path) -> Image.Image:
    with _opened(path) as image:
        return _to_rgb(ImageOps.exif_transpose(image), path)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError as error:
        raise MissingInputError(
            f"No image '{path}', though it was listed. Start again to list the files anew."
        ) from error
    # Pillow reports broken files by all of these.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"'{path}' cannot be read as an image ({error}). Replace the file or remove it."
        ) from error


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F":
        raise InputError(
            f"'{path}' holds floating-point pixels, whose range is unknown. Convert it to 8 or 16 "
            f"bits."
        )
    if image.mode.startswith("I"):  # 16 bits; Pillow opens some such files with 32-bit pixels
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray((wide / 257).round().astype(np.uint8))
    return _convert(image)


def _convert(image: Image.Image) -> Image.Image:
    # A palette goes by way of RGBA: Pillow would warn about a transparent one.
    return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def _defective(mask: Image.Image) -> NDArray[np.bool_]:
    if mask.mode in ("1", "L", "F") or mask.mode.startswith("I"):
        return np.asarray(mask).astype(bool)
    # An opaque alpha is not a defect, and a palette's first entry need not be its black.
    return np.asarray(np.asarray(_convert(mask)).any(-1), dtype=np.bool_)
