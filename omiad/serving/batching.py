"""Photographs of all requests: a limit on how many wait, and one thread that scores them."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import NamedTuple

import torch
from torch import Tensor

from omiad.errors import InputError, NotFiniteError
from omiad.inspection import Inspection
from omiad.predictor import Predictor

logger = logging.getLogger(__name__)


class ModelFailure(Exception):  # noqa: N818  the input is not to blame
    """The model failed on a batch, for a reason other than the photographs."""


class Places:
    """Places for the photographs between the door and their answer; of one thread.

    Attributes:
        most: Number of places.
        taken: Places that are taken.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def take(self, count: int) -> bool:
        """Take so many places, or none if there are not enough."""
        is_room = self.taken + count <= self.most
        self.taken += count if is_room else 0
        return is_room

    def free(self, count: int) -> None:
        """Give places back."""
        self.taken -= count


class _Waiting(NamedTuple):
    pixels: Tensor  # (3, H, W), uint8
    size: tuple[int, int]
    answer: Future[Inspection]


class Batcher:
    """Scores the photographs that wait together, in the order in which they came.

    A score is the same to the last bit, whatever else is in the batch. Nobody waits for a batch to
    fill: photographs gather while the batch before is scored.

    Args:
        predictor: The model.
        batch_size: Most photographs that are scored at once.
        category: The product that all photographs show; by default it is recognised.
        false_alarms: Rate of false alarms; by default that of the model.
        watch: Called with the number of photographs of each batch.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        batch_size: int,
        category: str | None = None,
        false_alarms: float | None = None,
        watch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._predictor, self._batch_size, self._watch = predictor, batch_size, watch
        self._category, self._false_alarms = category, false_alarms
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="score", daemon=True)
        self._thread.start()

    def submit(self, pixels: Tensor, size: tuple[int, int]) -> "Future[Inspection]":
        """Return the result to come of a photograph (3, H, W) and its own width and height."""
        answer: Future[Inspection] = Future()
        self._waiting.put(_Waiting(pixels, size, answer))
        return answer

    def close(self) -> None:
        """Score what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while first := self._waiting.get():
            batch, is_last = [first], False
            while len(batch) < self._batch_size:
                try:
                    each = self._waiting.get_nowait()
                except Empty:
                    break
                if each is None:
                    is_last = True
                    break
                batch.append(each)
            self._watch(len(batch))
            self._score([each for each in batch if each.answer.set_running_or_notify_cancel()])
            if is_last:
                return

    def _score(self, batch: list[_Waiting]) -> None:
        """Answer each photograph; what goes wrong with a batch is the answer to its requests."""
        while batch:
            try:
                found = self._predictor.inspect(
                    torch.stack([each.pixels for each in batch]).to(
                        self._predictor.map_range.device
                    ),
                    sizes=[each.size for each in batch],
                    category=self._category,
                    false_alarms=self._false_alarms,
                )
            except NotFiniteError as error:
                batch.pop(error.index).answer.set_exception(
                    InputError("The score of the photograph is not finite.")
                )
                continue
            except Exception as error:  # the thread must go on
                kind = type(error).__name__
                logger.warning("a batch of %d photographs failed: %s: %s", len(batch), kind, error)
                for each in batch:
                    each.answer.set_exception(ModelFailure(kind))
                return
            for each, inspection in zip(batch, found, strict=True):
                each.answer.set_result(inspection)
            return
