"""What reaches the terminal: no name from data can colour it, move its cursor or command it."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from logging import Formatter, LogRecord
from typing import IO, Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.file_proxy import FileProxy
from rich.segment import Segment
from rich.text import Text

from omiad.names import one_line, printable


class Console(rich.console.Console):
    """A console that shows text as it is: without markup, and control characters as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape a text before a table measures it."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape everything else; colours and movements of the cursor are no text of a segment."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


@cache
def console() -> Console:
    """Return the one console, whose progress bars and messages keep out of each other's way."""
    return Console()


class OneLine(Formatter):
    """Formats a message of the log as one line without control characters."""

    def format(self, record: LogRecord) -> str:
        """Return the message of a record."""
        return one_line(record.getMessage())


class EscapedStream(FileProxy):
    """A stream that escapes control characters: libraries print messages that hold names.

    Consoles of rich find the stream below it, which they colour; so does `Live` of rich, which
    leaves a `FileProxy` in its place.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(console(), stream)

    def write(self, text: str) -> int:
        """Write a text; a progress bar of tqdm may begin with a return on a terminal."""
        stream = self.rich_proxied_file
        start = "\r" if text.startswith("\r") and stream.isatty() else ""
        stream.write(start + printable(text.removeprefix(start)))
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        self.rich_proxied_file.flush()


@contextmanager
def escaped_output() -> Iterator[None]:
    """Escape control characters in everything that is written to stdout and stderr."""
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if stream is not None and not isinstance(stream, EscapedStream):
            if hasattr(stream, "reconfigure"):  # a terminal that is not UTF-8 lacks characters
                stream.reconfigure(errors="backslashreplace")
            setattr(sys, name, EscapedStream(stream))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
