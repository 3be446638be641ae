"""SIGINT (Ctrl-C) and SIGTERM as requests to stop, which a training answers between two batches."""

import logging
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a run to stop."""

ECHO_SECONDS = 1.0
"""Time in which a signal counts as the one before: a terminal and a launcher both send it."""

_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")


class Interrupted(SystemExit):
    """A signal stops the run; the exit status is 128 plus the number of the signal."""

    def __init__(self, number: int, *, status: int | None = None) -> None:
        super().__init__(128 + number if status is None else status)
        self.number = number


class StopRequests:
    """Receive SIGINT and SIGTERM inside a `with` block, which may contain others.

    Attributes:
        number: The signal that asked to stop, or 0.
        is_deferred: Whether the work under way asks for `number` by itself. A signal is then only
            noted, and a second SIGINT raises `Interrupted`; otherwise the first signal raises it.
    """

    def __init__(self) -> None:
        self.number = 0
        self.is_deferred = False
        self._time = 0.0
        self._before: list[dict[int, Any]] = []

    def __enter__(self) -> "StopRequests":
        if not self._before:
            self.number, self.is_deferred = 0, False
        self._before.append({})
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                # A job in the background ignores SIGINT, and goes on ignoring it.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[-1][number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.pop().items():
            signal.signal(number, handler)

    def stop_at_once(self) -> None:
        """Let signals stop the run at once from now on, and also one that was noted before.

        Raises:
            Interrupted: If a signal was noted.
        """
        self.is_deferred = False
        if self.number:
            raise Interrupted(self.number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        first, self._time = self._time, time.monotonic()
        if self.number and (number != signal.SIGINT or self._time - first < ECHO_SECONDS):
            return
        is_first, self.number = not self.number, number
        if not (self.is_deferred and is_first):
            raise Interrupted(number)
        logger.warning(
            "%s: the run stops after this batch. Press Ctrl-C again to stop at once, without a "
            "checkpoint.",
            signal.Signals(number).name,
        )


stop_requests = StopRequests()
"""The requests of this process: signals reach a process, not an object."""


def is_lost_process(error: BaseException) -> bool:
    """Return whether torch.distributed lost another process of this run."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _LOST)
