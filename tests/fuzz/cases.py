"""One attack: what is run in a folder, and which outcomes are clean."""

import os
import re
import shlex
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from watched import UNCAUGHT, Ending
from world import World

from omiad.cli import main
from omiad.errors import InputError

INPUT, OUTPUT, TEMPORARY = "in", "out", "tmp"
"""Folders of a case: what the attacker wrote, and where the command may write."""

CANARY = "canary"
"""Name of a file that only an attack writes, in the folder of the case."""

LONGEST_SENTENCE = 4000
DEPTH = "a/b/c/d"
"""A case lies so deep below its own folder that `../../../x` stays where it is noticed."""

_ERROR = re.compile(r"^(?:\w+\.)*[A-Z]\w+(?:: .*)?$", re.MULTILINE)
"""The last line of a traceback."""

WRONG = "AssertionError: "
"""How a reader in Python says that it got a wrong value."""

INVISIBLE = {"Cc", "Cf", "Co", "Cs"}
"""Unicode categories that may change what a terminal shows; they must be escaped."""


@dataclass(frozen=True)
class Case:
    """What an attack runs and how a success is judged.

    Attributes:
        words: The words after `omiad`; paths are relative to the folder of the case.
        call: What runs instead of a command, such as a reader.
        check: Says what is wrong with a success, or returns None.
        checks_refusals: Whether `check` must hold after a refusal too.
        statuses: Exit statuses that are no failure.
        seconds: How long the run may take on a busy machine.
    """

    words: tuple[str, ...] = ()
    call: Callable[[], object] | None = None
    check: Callable[[], str | None] = lambda: None
    checks_refusals: bool = False
    statuses: tuple[int, ...] = (0, 2)
    seconds: float = 60

    def run(self) -> None:
        """Run the command or the call, and exit as the command line does."""
        if self.call is None:
            main(self.words)
            return
        try:
            self.call()
        except InputError as error:
            raise SystemExit(f"omiad: error: {error}") from None

    def line(self) -> str:
        """Return the command as a line for a shell."""
        return shlex.join(("omiad", *self.words)) if self.words else "the reader, from Python"


Kind = Callable[[World, np.random.Generator, Path], Case]
"""Writes the input of one attack below a folder and returns the attack."""


def command(text: str, *more: str) -> tuple[str, ...]:
    """Split a command into words; further words may hold anything."""
    return (*text.split(), *more)


def verdict(case: Case, ending: Ending, folder: Path) -> str | None:
    """Return what is wrong with an ending in a few words, or None if it is clean."""
    faults = (
        partial(_deed, ending, folder),
        partial(_end, case, ending),
        partial(_speech, case, ending),
        case.check if ending.status == 0 or case.checks_refusals else lambda: None,
    )
    return next(filter(None, (fault() for fault in faults)), None)


def _deed(ending: Ending, folder: Path) -> str | None:
    if ending.seen:
        return ending.seen[0]
    own, inner = folder, Path(DEPTH).parts
    for name in reversed(inner):
        own = own.parent
        if strays := set(os.listdir(own)) - {name}:
            return f"wrote outside: {sorted(strays)[0]}"
    known = {INPUT, OUTPUT, TEMPORARY, "said.txt", "seen.txt"}
    if strays := set(os.listdir(folder)) - known:
        return f"wrote outside: {sorted(strays)[0]}"
    return None


def _end(case: Case, ending: Ending) -> str | None:
    if ending.is_late:
        return "hung"
    if ending.status == UNCAUGHT or b"Traceback (most recent call last)" in ending.said:
        errors = _ERROR.findall(ending.said.decode(errors="replace"))
        last = errors[-1][:100] if errors else ""
        return last.removeprefix(WRONG) if last.startswith(WRONG) else f"traceback: {last}"
    if ending.status < 0:
        return f"died of signal {-ending.status}"
    if ending.status == 1 and case.call is not None:
        return None  # SystemExit with a sentence
    return None if ending.status in case.statuses else f"status {ending.status}"


def _speech(case: Case, ending: Ending) -> str | None:
    try:
        said = ending.said.decode()
    except UnicodeDecodeError:
        return "said bytes that are not UTF-8"
    for each in said:
        if each != "\n" and unicodedata.category(each) in INVISIBLE:
            return f"said a raw control character {each!r}"
    if ending.status == 2:
        _, found, sentence = said.rpartition("error:")
        if not found or len(sentence.strip()) < 10:
            return "refused without a sentence"
        if len(sentence) > LONGEST_SENTENCE:
            return "refused with a sentence of more than 4,000 characters"
    return None
