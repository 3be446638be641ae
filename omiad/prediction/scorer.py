"""Photographs to decisions: threads read them while the model scores those before them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from omiad.detector import Detector
from omiad.errors import InputError, NotFiniteError
from omiad.inspection import Inspection
from omiad.photographs import read_photograph
from omiad.prediction.photographs import Photograph
from omiad.report.pictures import Pixels

Item = TypeVar("Item")
Result = TypeVar("Result")


class Scored(NamedTuple):
    """Pixels (H, W, 3) as the model saw them, and what it says about the photograph."""

    pixels: Pixels
    inspection: Inspection


class Scorer:
    """Inspects photographs in batches.

    Args:
        detector: The model.
        batch_size: Photographs scored at once.
        num_workers: Threads that read photographs beside the scoring; with 0, none does.
        category: The product that all photographs show; by default it is recognised.
        false_alarms: Rate of false alarms; by default that of the model.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        batch_size: int = 8,
        num_workers: int = 0,
        category: str | None = None,
        false_alarms: float | None = None,
    ) -> None:
        self._detector, self._batch_size, self._num_workers = detector, batch_size, num_workers
        self._category, self._false_alarms = category, false_alarms

    def results(
        self, photographs: Iterable[Photograph]
    ) -> Generator[tuple[Photograph, Scored | str], None, None]:
        """Yield each photograph with what was found in it, or a sentence why it is unreadable.

        Raises:
            InputError: If a score is not finite.
        """
        most = self._batch_size + self._num_workers
        with closing(ahead(self._read, photographs, self._num_workers, most=most)) as read:
            while batch := list(islice(read, self._batch_size)):
                yield from self._inspected(batch)

    def _read(self, photograph: Photograph) -> tuple[Photograph, Tensor | str, tuple[int, int]]:
        """Return the pixels and the own size of a photograph, or why it is unreadable."""
        extractor = self._detector.extractor
        if photograph.fault:
            return photograph, photograph.fault, (0, 0)
        try:
            pixels, size = read_photograph(
                *(photograph.path, extractor.image_size),
                tiles=extractor.tiling.tiles,
                white_level=extractor.white_level,
            )
        except InputError as error:
            return photograph, str(error), (0, 0)
        return photograph, pixels, size

    def _inspected(
        self, batch: list[tuple[Photograph, Tensor | str, tuple[int, int]]]
    ) -> Iterator[tuple[Photograph, Scored | str]]:
        read = [(each, x, size) for each, x, size in batch if isinstance(x, Tensor)]
        found: Iterator[Scored] = iter(())
        if read:
            images = torch.stack([pixels for _, pixels, _ in read])
            try:
                inspections = self._detector.inspect(
                    images.to(self._detector.map_range.device),
                    sizes=[size for *_, size in read],
                    category=self._category,
                    false_alarms=self._false_alarms,
                )
            except NotFiniteError as error:
                path = read[error.index][0].path
                raise InputError(f"'{path}' has no score. {error}") from error
            found = map(Scored, images.permute(0, 2, 3, 1).numpy(), inspections)
        for photograph, pixels, _ in batch:
            yield photograph, pixels if isinstance(pixels, str) else next(found)


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], num_workers: int, *, most: int
) -> Generator[Result, None, None]:
    """Yield the result of some work on each item, in order, done by threads before it is asked for.

    At most so many results wait. Without workers, the work is done when its result is asked for.
    """
    if not num_workers:
        yield from map(work, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers, "read") as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for each in pending:
                each.cancel()
