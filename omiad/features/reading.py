"""From image files to features, in batches of one size."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omiad.errors import InputError
from omiad.features.extractor import FeatureExtractor
from omiad.features.identity import content_of, stamp_of

T = TypeVar("T")

READING_RULES = 1
"""Version of the rules by which an image file becomes pixels; raise it when they change."""

BATCH_SIZE = 32
"""Images in each forward pass of the backbone, in a cache as in a test."""


class FileLoader(DataLoader[T]):
    """A DataLoader that passes on an InputError of a worker without the worker's traceback.

    Workers do not collect garbage among the objects they were forked with, which would copy the
    pages of those objects into every worker.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("worker_init_fn", _freeze)
        # With its own generator, an iteration leaves torch's global random state alone.
        kwargs.setdefault("generator", torch.Generator())
        super().__init__(*args, **kwargs)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except InputError as error:
            # torch's exception holds its traceback, and the traceback holds the workers.
            error.__traceback__ = None
            sentence = str(error).rpartition("InputError: ")[2].strip()
            raise type(error)(sentence) from None


def _freeze(_: int) -> None:
    gc.freeze()


class ImageFiles(Dataset[tuple[Tensor, str, str]]):
    """Image files; an item is the pixels (3, size, size), uint8, the stamp and the content's hash.

    Args:
        paths: The files.
        size: Side of the images in pixels.
        read: Reads one file at that size as uint8 (3, size, size).
    """

    def __init__(
        self, paths: Sequence[Path], size: int, read: Callable[[Path, int], Tensor]
    ) -> None:
        # Workers share one array, but would copy a list by counting references to its items.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.size = size
        self.read = read

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, str, str]:
        path = Path(os.fsdecode(self._paths[index]))
        # In this order: if the file changes in between, the next start finds another content.
        stamp, content = stamp_of(path), content_of(path)
        return self.read(path, self.size), stamp, content


FeaturesOfFiles = tuple[Tensor, Sequence[str], Sequence[str]]
"""Raw features (B, C, h, w) of files, float16 on the CPU; the stamps and SHA-256s of the files."""


@dataclass(frozen=True)
class Extraction:
    """How the features of images are computed.

    Attributes:
        extractor: The backbone, on the device where it runs.
        read: Reads an image file as uint8 (3, size, size); picklable if there are workers.
        batch_size: Images in each forward pass.
        num_workers: Processes that read images.
    """

    extractor: FeatureExtractor
    read: Callable[[Path, int], Tensor]
    batch_size: int = BATCH_SIZE
    num_workers: int = 0

    def batches(self, paths: Sequence[Path]) -> Iterator[FeaturesOfFiles]:
        """Yield the features of image files.

        Raises:
            InputError: If an image is gone or cannot be read.
        """
        loader: FileLoader[FeaturesOfFiles] = FileLoader(
            ImageFiles(paths, self.extractor.image_size, self.read),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
        )
        for pixels, stamps, contents in track(loader, "features", total=len(loader)):
            yield self.features(pixels).cpu().contiguous(), stamps, contents

    def features(self, images: Tensor) -> Tensor:
        """Compute the features (B, C, h, w), half precision, of images (B, 3, S, S), uint8.

        The extractor always gets `batch_size` images. A kernel for another shape may round
        differently, and the features of an image must not depend on the rest of the batch.
        """
        images = images.to(self.extractor.mean.device)
        return torch.cat([self._padded(part) for part in torch.split(images, self.batch_size)])

    def _padded(self, images: Tensor) -> Tensor:
        padding = images[-1:].expand(self.batch_size - len(images), -1, -1, -1)
        return self.extractor.features(torch.cat([images, padding]))[: len(images)]
