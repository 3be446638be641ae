"""Counts of every image by itself, in a few bins: what resampling images needs."""

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, NamedTuple

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
            gathered: list[bytes] = [b""] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(gathered, self._content())
            self._open().writelines(gathered)

    def read(self) -> CountedImages:
        """Return the images, a repeated one once."""
        images = dict(_parse(self._content()))
        index = sorted(images)
        whole = merge(list(images.values()), max_bins=MAX_BINS)
        counts = np.zeros((len(index), 3, len(whole.keys)), np.float32)
        for row, image in enumerate(index):
            shift, keys, values = images[image]
            bins = np.searchsorted(whole.keys, keys >> np.int32(whole.shift - shift))
            for total, more in zip(counts[row], values, strict=True):
                np.add.at(total, bins, more)
        return CountedImages(np.array(index, np.int64), counts)

    def _open(self) -> IO[bytes]:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the images count)
        weakref.finalize(self, self._file.close)
        return self._file

    def _content(self) -> bytes:
        if self._file is None:
            return b""
        self._file.seek(0)
        return self._file.read()


def _parse(content: bytes) -> Iterator[tuple[int, Tally]]:
    start = 0
    while start < len(content):
        image, shift, size = np.frombuffer(content, np.int64, 3, start).tolist()
        keys = np.frombuffer(content, np.int32, size, start + 24)
        counts = np.frombuffer(content, np.float32, 3 * size, start + 24 + 4 * size)
        yield image, Tally(shift, keys, counts.reshape(3, size).astype(np.float64))
        start += 24 + 16 * size
