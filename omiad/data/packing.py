"""A list of samples in two buffers, for processes that read images."""

import pickle
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np

from omiad.types import Sample


class PackedSamples(Sequence[Sample]):
    """A list of samples that worker processes share instead of copying.

    Reading a Python object writes its reference count, which copies its page of memory into every
    worker. The buffers are never written (detectron2, data/common.py, NumpySerializedList).
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        pickled = [pickle.dumps(sample) for sample in samples]
        self._ends = np.cumsum([0, *map(len, pickled)], dtype=np.int64)
        self._content = np.frombuffer(b"".join(pickled), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        numbers = range(len(self))[index]  # raises IndexError, and counts negatives from the end
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        sample: Sample = pickle.loads(self._content[slice(*self._ends[numbers : numbers + 2])].data)
        return sample
