"""Counts of each image in a few bins, which are what resampling images needs."""

import os
import pickle
import tempfile
import weakref
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.gathering import gather
from omiad.metrics.histogram import Tally, merge, tally

MAX_BINS = 256
"""Bins of a category. They are coarse: only differences of figures are taken from them."""


class CountedImages(NamedTuple):
    """The images of a category, by ascending index.

    Attributes:
        index: Position of each image in its split (N,).
        counts: Normal, defective and weighted defective pixels in each bin, from the lowest bin
            (N, 3, K), float32.
    """

    index: NDArray[np.int64]  # type: ignore[assignment] # shadows tuple.index, which is unused
    counts: NDArray[np.float32]


class ImageCounts:
    """Tallies of images in a temporary file: memory does not grow with their number."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
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
            codes: Codes of the scores of their pixels (B, N).
            defective: Positions of the defective pixels among all of them, ascending (M,).
            weights: 1 / area of the region of each defective pixel (M,).
            index: Position of each image in its split (B).
        """
        tallies, shift = [], self._all.shift
        starts = np.searchsorted(defective, np.arange(len(codes) + 1) * codes.shape[1])
        for row, image in enumerate(index):
            mine = slice(starts[row], starts[row + 1])
            pixels = defective[mine] - row * codes.shape[1]
            counted = tally(codes[row], pixels, weights[mine], shift=shift, max_bins=MAX_BINS)
            shift = counted.shift
            tallies.append(counted)
            pickle.dump((image, shift, counted.keys, counted.counts.astype(np.float32)), self._file)
        self._all = merge([self._all, *tallies], max_bins=MAX_BINS)

    def share(self) -> None:
        """Take in the images of all processes; every process must call this method."""
        self._file.seek(0)
        shares = gather((self._all, self._file.read()))
        self._all = merge([counted for counted, _ in shares], max_bins=MAX_BINS)
        self._file.seek(0)
        self._file.writelines(content for _, content in shares)

    def read(self) -> CountedImages:
        """Return the images, a repeated image once."""
        index = sorted({image for image, *_ in self._images()})
        rows = {image: row for row, image in enumerate(index)}
        counts = np.zeros((len(index), 3, len(self._all.keys)), np.float32)
        for image, shift, keys, values in self._images():
            if image in rows:
                bins = np.searchsorted(self._all.keys, keys >> np.int32(self._all.shift - shift))
                for total, more in zip(counts[rows.pop(image)], values, strict=True):
                    np.add.at(total, bins, more)
        return CountedImages(np.array(index, np.int64), counts)

    def _images(self) -> Iterator[tuple[int, int, NDArray[np.int32], NDArray[np.float32]]]:
        """Read index, shift, keys and counts of one image after the other."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        while self._file.tell() < size:
            yield pickle.load(self._file)
