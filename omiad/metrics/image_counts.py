"""Counts of every image by itself, in a few bins: what resampling images needs."""

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from omiad.metrics.histogram import Tally, merge, tally

MAX_BINS = 256
"""Bins of a category. They are coarse: figures from them serve for differences alone."""


class CountedImages(NamedTuple):
    """The images of a category, by ascending index.

    Attributes:
        index: Position of each in its split (N,).
        counts: Normal, defective and weighted defective pixels in each bin, from the lowest bin
            (N, 3, K), float32.
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # nobody searches images as a tuple
    counts: NDArray[np.float32]


class ImageCounts:
    """Tallies of images, kept in a temporary file: memory does not grow with their number."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._all = Tally.empty()

    def add(
        self,
        codes: NDArray[np.int32],
        defective: NDArray[np.intp],
        weights: NDArray[np.float32],
        index: list[int],
    ) -> None:
        """Add images.

        Args:
            codes: Codes of their pixels' scores (B, N).
            defective: Positions of the defective ones among all of them, ascending (M,).
            weights: 1 / area of the region of each of those (M,).
            index: Position of each image in its split (B).
        """
        file = self._open() if self._file is None else self._file
        tallies, shift = [], self._all.shift
        starts = np.searchsorted(defective, np.arange(len(codes) + 1) * codes.shape[1])
        for row, image in enumerate(index):
            mine = slice(starts[row], starts[row + 1])
            pixels = defective[mine] - row * codes.shape[1]
            counted = tally(codes[row], pixels, weights[mine], shift=shift, max_bins=MAX_BINS)
            shift = counted.shift
            tallies.append(counted)
            head = np.array([image, counted.shift, len(counted.keys)], np.int64)
            for array in (head, counted.keys, counted.counts.astype(np.float32)):
                file.write(array.tobytes())
        self._all = merge([self._all, *tallies], max_bins=MAX_BINS)

    def share(self) -> None:
        """Take in the images of all processes; each must call it."""
        if torch.distributed.is_initialized():
            content = b"" if self._file is None else self._rewound(self._file).read()
            gathered: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, (self._all, content))
            self._all = merge([counted for counted, _ in gathered], max_bins=MAX_BINS)
            self._open().writelines(content for _, content in gathered)

    def read(self) -> CountedImages:
        """Return the images, a repeated one once."""
        index = sorted({image for image, _ in self._images()})
        rows = {image: row for row, image in enumerate(index)}
        counts = np.zeros((len(index), 3, len(self._all.keys)), np.float32)
        for image, (shift, keys, values) in self._images():
            if image in rows:
                bins = np.searchsorted(self._all.keys, keys >> np.int32(self._all.shift - shift))
                for total, more in zip(counts[rows.pop(image)], values, strict=True):
                    np.add.at(total, bins, more)
        return CountedImages(np.array(index, np.int64), counts)

    def _images(self) -> Iterator[tuple[int, Tally]]:
        """Read one image after the other."""
        if self._file is None:
            return
        file = self._rewound(self._file)
        while head := file.read(24):
            image, shift, size = np.frombuffer(head, np.int64).tolist()
            keys = np.frombuffer(file.read(4 * size), np.int32)
            counts = np.frombuffer(file.read(12 * size), np.float32)
            yield image, Tally(shift, keys, counts.reshape(3, size).astype(np.float64))

    def _open(self) -> IO[bytes]:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the images count)
        weakref.finalize(self, self._file.close)
        return self._file

    @staticmethod
    def _rewound(file: IO[bytes]) -> IO[bytes]:
        file.seek(0)
        return file
