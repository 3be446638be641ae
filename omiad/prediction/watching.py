"""A folder that receives photographs: which of them are whole, and have not been scored yet."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from omiad.prediction.photographs import Photograph, look

INTERVAL = 0.5
"""Seconds between two looks at the folder."""

SETTLED = 1.0
"""Seconds without a change after which a file counts as written."""

PATIENCE = 10.0
"""Seconds without a change after which a file that cannot be read counts as unreadable."""

Key = tuple[str, int, int]
"""Path, size and time of a file: the same name with other content is another photograph."""


@dataclass
class _Seen:
    """What was seen of a file.

    Attributes:
        since: When the file was first seen as it is.
        is_tried: Whether the file could not be read.
    """

    since: float
    is_tried: bool = False


class Watch:
    """Looks at folders again and again.

    Args:
        given: Files, folders and patterns, as for `find_photographs`.
        known: Photographs that were scored before.
        clock: Returns the time in seconds.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        given: Sequence[str],
        known: Iterable[Key],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._given, self._done = given, set(known)
        self._clock, self._sleep = clock, sleep
        self._seen: dict[Key, _Seen] = {}

    def arrivals(self) -> Iterator[list[Photograph]]:
        """Yield the photographs that are whole, whenever there are some, without an end.

        Each is yielded again until it is `done`, or twice if it stays unreadable.
        """
        while True:
            if arrived := self._look():
                yield arrived
            else:
                self._sleep(INTERVAL)

    def done(self, photograph: Photograph, *, is_unreadable: bool) -> bool:
        """Note that a photograph was read; return whether what was found is final.

        It is not if a file that cannot be read has changed a short time ago.
        """
        key = key_of(photograph)
        if is_unreadable and self._clock() - self._seen[key].since < PATIENCE:
            self._seen[key].is_tried = True
            return False
        self._done.add(key)
        del self._seen[key]
        return True

    def _look(self) -> list[Photograph]:
        now, seen, arrived = self._clock(), self._seen, []
        self._seen = {}
        for photograph in look(self._given):
            if (key := key_of(photograph)) not in self._done:
                self._seen[key] = state = seen.get(key) or _Seen(now)
                if now - state.since >= (PATIENCE if state.is_tried else SETTLED):
                    arrived.append(photograph)
        return arrived


def key_of(photograph: Photograph) -> Key:
    """Return what tells a photograph from all others."""
    return (str(photograph.path), *photograph.stamp)
