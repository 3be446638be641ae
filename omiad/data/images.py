"""Image files as arrays and tensors: photographs as uint8 RGB, defect masks as bool."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from omiad.data.packing import PackedSamples
from omiad.errors import InputError, MissingInputError
from omiad.protocols import UNIAD
from omiad.types import ImageBatch, Labels, Sample, ScoringBatch

# In lower case; upper case is accepted too.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

# Labels the pixels of a mask (H, W), bool, at the size of the anomaly map, and counts the regions
# that vanish there; see `Labels`.
PrepareMask = Callable[[NDArray[np.bool_]], tuple[Tensor, int]]


class MaskSizeError(InputError):
    """A defect mask and its photograph differ in size."""


def read_image(path: Path, size: int) -> Tensor:
    """Read a photograph as 8-bit RGB (3, size, size) and resize it to a square, bilinear.

    The EXIF orientation is applied. Grayscale is repeated to three channels. 16-bit grayscale is
    scaled from 0..65535 to 0..255; 16-bit colour keeps its high byte. Palettes and CMYK are
    converted to RGB. Transparency is dropped and the stored colour is kept. Only the first page of
    a file is read. The aspect ratio is not kept, as in the protocols of MVTec AD. JPEG is decoded
    at full size; draft mode would take half of the time but change pixels by up to two levels.

    Raises:
        MissingInputError: If the file does not exist.
        InputError: If the file is corrupt or truncated, has floating-point pixels, or has more than
            179 million pixels (Pillow's limit against decompression bombs).
    """
    resized = _read_rgb(path).resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def load_image(path: Path) -> NDArray[np.uint8]:
    """Read a photograph (H, W, 3) at its own size; otherwise like `read_image`."""
    return np.array(_read_rgb(path))


def read_mask(path: Path, size: int, *, image: Path) -> Tensor:
    """Read the mask of a photograph (size, size), bool, and resize it, nearest neighbour.

    Every pixel that is not black is defective. The mask is binarised before it is resized, so
    masks of class numbers (1, 2, ...) work like masks of 255. `image` is the photograph.

    Raises:
        MissingInputError: If a file does not exist.
        MaskSizeError: If the mask and the photograph differ in size.
        InputError: If a file is corrupt.
    """
    binary = Image.fromarray(load_mask(path, image=image).astype(np.uint8))
    resized = binary.resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized)) != 0


def load_mask(path: Path, *, image: Path) -> NDArray[np.bool_]:
    """Read a defect mask (H, W) at its own size; otherwise like `read_mask`."""
    with _opened(path) as opened:
        mask = ImageOps.exif_transpose(opened)
    if mask.mode not in ("1", "L", "F") and not mask.mode.startswith("I"):
        # An opaque alpha channel is no defect, and black may be any entry of a palette.
        mask = Image.fromarray(np.array(mask.convert("RGBA"))[..., :3].max(-1))
    defective = np.array(mask).astype(np.bool_)
    with _opened(image) as opened:
        width, height = upright_size(opened)
    if mask.size != (width, height):
        raise MaskSizeError(
            f"The mask '{path}' is {mask.width} x {mask.height} pixels, but its image '{image}' is "
            f"{width} x {height}. Export the mask at the size of its image."
        )
    return defective


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the width and height of an opened image after its EXIF rotation."""
    sideways = image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
    return image.size[::-1] if sideways else image.size


def save_image(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write pixels (H, W) or (H, W, 3) as an image file, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@dataclass(eq=False)
class ImageDataset(Dataset[ImageBatch | ScoringBatch]):
    """Photographs with their labels, in the order of the samples.

    An item is an `ImageBatch` without the batch axis. If the features of the samples are given, it
    is a `ScoringBatch`. Without `prepare_mask`, masks are resized like `read_mask`.
    """

    samples: Sequence[Sample]
    image_size: int
    _: KW_ONLY
    prepare_mask: PrepareMask | None = None
    features: Dataset[Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.samples, PackedSamples):
            self.samples = PackedSamples(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> ImageBatch | ScoringBatch:
        sample, size = self.samples[index], self.image_size
        resized = replace(UNIAD, input_size=size, map_size=size, pool_size=1)
        prepare_mask = self.prepare_mask or resized.label_mask
        if sample.masks:
            mask, num_vanished = prepare_mask(load_mask(sample.masks[0], image=sample.image))
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
        return ImageBatch(read_image(sample.image, size), labels)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError as error:
        raise MissingInputError(
            f"The image '{path}' is missing. Restore it, or remove it and start again."
        ) from error
    # Pillow raises all of these for broken files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"'{path}' cannot be read as an image ({error}). Replace the file or remove it."
        ) from error


def _read_rgb(path: Path) -> Image.Image:
    with _opened(path) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F":
        raise InputError(
            f"'{path}' has floating-point pixels of unknown range. Convert it to 8 or 16 bits."
        )
    if image.mode.startswith("I"):  # 16 bits; Pillow opens some such files with 32-bit pixels
        wide = np.asarray(image).astype(np.float64).clip(0, 65535)
        image = Image.fromarray((wide / 257).round().astype(np.uint8))
    if image.mode == "P":  # a transparent palette that becomes RGB at once makes Pillow warn
        image = image.convert("RGBA")
    return image.convert("RGB")
