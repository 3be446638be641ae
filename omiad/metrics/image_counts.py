"""Counts of each image in a few bins, from which images are resampled."""

import os
import pickle
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omiad.metrics.gathering import gather
from omiad.metrics.histogram import Pixels, Tally, merge, tally

MAX_BINS = 256
"""Bins of a category. They are coarse: only differences of figures are taken from them."""


class ImageCounts:
    """Tallies of images in a temporary file: memory does not grow with their number."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)
        self._all = Tally()

    def add(self, pixels: Pixels, index: list[int]) -> None:
        """Add images (B): their pixels, equally many of each, and their positions in the split."""
        size = len(pixels.codes) // len(index)
        tallies, shift = [], self._all.shift
        for row, image in enumerate(index):
            counted = tally(pixels.part(row * size, size), shift=shift, max_bins=MAX_BINS)
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

    def read(self) -> NDArray[np.float32]:
        """Return the counts (N, 3, K) by ascending index; a repeated image counts once."""
        rows = {image: row for row, image in enumerate(sorted({i for i, *_ in self._images()}))}
        counts = np.zeros((len(rows), 3, len(self._all.keys)), np.float32)
        for image, shift, keys, values in self._images():
            if image in rows:
                bins = np.searchsorted(self._all.keys, keys >> np.int32(self._all.shift - shift))
                for total, more in zip(counts[rows.pop(image)], values, strict=True):
                    np.add.at(total, bins, more)
        return counts

    def _images(self) -> Iterator[tuple[int, int, NDArray[np.int32], NDArray[np.float32]]]:
        """Read index, shift, keys and counts of one image after the other."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        while self._file.tell() < size:
            yield pickle.load(self._file)
