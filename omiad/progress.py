"""Progress of long work: a bar on a terminal, otherwise a line every half minute."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from omiad.names import one_line
from omiad.terminal import console

logger = logging.getLogger(__name__)

INTERVAL = 30.0
"""Seconds between two lines where no terminal shows a bar."""

Item = TypeVar("Item")


class Progress:
    """Show how far some work is, such as "stage 1 of 2: step 340 of 1,200, 12 min left".

    Args:
        what: The work.
        total: Units of work in all.
        unit: What one unit is.
        done: Units that were done before, by an earlier run.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        what: str,
        total: int,
        *,
        unit: str = "image",
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit, self.done = one_line(what), max(total, 1), unit, done
        self._clock = clock
        self._start, self._done_before = clock(), done
        self._last_line = self._start
        texts = ("{task.description}", "{task.fields[text]}")
        before, after = (TextColumn(text, markup=False) for text in texts)
        self._bar = (
            Bar(before, BarColumn(), after, console=console()) if console().is_terminal else None
        )

    def start(self) -> "Progress":
        """Show the bar."""
        if self._bar is not None:
            self._task = self._bar.add_task(self.what, total=self.total, text=self.text)
            self._bar.start()
        return self

    def stop(self) -> None:
        """Leave the last state of the bar on the terminal."""
        if self._bar is not None:
            self._bar.stop()

    __enter__ = start

    def __exit__(self, *error: object) -> None:
        """Stop, also after an error."""
        self.stop()

    def update(self, done: int) -> None:
        """Show that so many units are done; the last step of some work does more than was asked."""
        self.done = done = min(done, self.total)
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=self.text)
        elif self._clock() - self._last_line >= INTERVAL:
            self._last_line = self._clock()
            logger.info("%s: %s", self.what, self.text)

    @property
    def text(self) -> str:
        """How far the work is, and how long the rest takes at the pace so far."""
        text = f"{self.unit} {self.done:,} of {self.total:,}"
        fresh = self.done - self._done_before
        if not fresh or self.done >= self.total:
            return text
        left = (self._clock() - self._start) / fresh * (self.total - self.done)
        return f"{text}, {duration(left)} left"


def track(
    items: Iterable[Item],
    what: str,
    *,
    total: int | None = None,
    unit: str = "image",
    disable: bool = False,
) -> Iterator[Item]:
    """Yield items, each one unit of work, and show the progress unless that is disabled.

    `total` is the number of items, which is needed if they have no length.
    """
    if disable:
        yield from items
        return
    number = len(items) if total is None and isinstance(items, Sized) else total
    with Progress(what, number or 0, unit=unit) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            progress.update(done)


def duration(seconds: float) -> str:
    """Return a duration as a person says it, such as "40 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
