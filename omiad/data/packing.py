"""Samples in few large buffers, for processes that read images."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from omiad.types import Sample


class PackedSamples(Sequence[Sample]):
    """A list of samples that worker processes share instead of copying.

    Reading an object of Python writes its reference count, which copies its page of memory into
    each worker; these buffers are never written.

    Args:
        samples: The samples.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        lines = [_pack(sample) for sample in samples]
        self._ends: NDArray[np.int64] = np.cumsum([len(line) for line in lines], dtype=np.int64)
        self._content: NDArray[np.uint8] = np.frombuffer(b"".join(lines), dtype=np.uint8)

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
        if not -len(self) <= index < len(self):
            raise IndexError(f"No sample {index} among {len(self)}.")
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return _unpack(self._content[start : self._ends[index]].tobytes())


def packed(samples: Sequence[Sample]) -> PackedSamples:
    """Pack samples that are not packed yet."""
    return samples if isinstance(samples, PackedSamples) else PackedSamples(samples)


def _pack(sample: Sample) -> bytes:
    fields = [
        str(sample.image),
        None if sample.mask is None else str(sample.mask),
        sample.category,
        sample.defect,
        sample.split,
        sample.sample_id,
        sample.view,
    ]
    return json.dumps(fields).encode()


def _unpack(line: bytes) -> Sample:
    image, mask, *rest = json.loads(line)
    return Sample(Path(image), None if mask is None else Path(mask), *rest)
