"""A list of samples in two buffers, for processes that read images."""

import pickle
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from omiad.types import Sample


class PackedSamples(Sequence[Sample]):
    """A list of samples that worker processes share instead of copying.

    Reading a Python object writes its reference count, which copies its page of memory into every
    worker. The buffers are never written (detectron2, data/common.py, NumpySerializedList).

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        packed = [pickle.dumps(sample) for sample in samples]
        self._ends: NDArray[np.int64] = np.cumsum([len(item) for item in packed], dtype=np.int64)
        self._content: NDArray[np.uint8] = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        return self._ends.nbytes + self._content.nbytes

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # raises IndexError, and counts negative ones from the end
        start = self._ends[number - 1] if number else 0
        sample: Sample = pickle.loads(self._content[start : self._ends[number]].data)
        return sample


def packed(samples: Sequence[Sample]) -> PackedSamples:
    """Pack samples that are not packed yet."""
    return samples if isinstance(samples, PackedSamples) else PackedSamples(samples)
