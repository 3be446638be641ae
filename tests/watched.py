"""Run a function in a forked process, and watch what it starts, writes, says, and how it ends.

A fork of a process that has imported everything costs milliseconds, so every trial gets its own
process: it may hang, crash or be killed. Python's audit hooks show programs that are started,
modules that are imported and files that are changed, before it happens.
"""

import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAID, SEEN = "said.txt", "seen.txt"
"""Files in the folder of a process: stdout with stderr, and what the process must not do."""

UNCAUGHT = 70
"""Exit status after an exception that nothing caught."""

MEMORY = 6 << 30
"""Bytes of address space that a process may ask for."""

STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "subprocess.Popen")
CONNECTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request")
STUBS = "import sys, json; print(json.dumps(sys.path))"
"""What jsonargparse's search for type stubs starts; an attacker cannot choose a letter of it."""

CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.chmod": ((0, 2),),
    "os.link": ((1, 3),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "shutil.rmtree": ((0, 1),),
}
"""Audit events that change a path: where among their arguments the path and its folder are.

The folder is the descriptor of an open one, or -1 or None for the working folder.
"""

FOLLOWING = ("os.chmod", "os.truncate")
"""Those of them that change what a link leads to; the others change the link itself."""

CANARY_MODULES = ("this", "antigravity")
"""Modules that only an attack imports."""

SECRET = "secret"
"""Part of the name of a file that only an attack reads."""


@dataclass(frozen=True)
class Ending:
    """How a process ended.

    Attributes:
        status: Its exit status, or minus the number of the signal that killed it.
        said: What it wrote to stdout and stderr.
        seen: What it did although it must not, a line for each deed.
        seconds: How long it ran.
        is_late: Whether it was killed because its time was up.
    """

    status: int
    said: bytes
    seen: list[str]
    seconds: float
    is_late: bool = False


class Watched:
    """A forked process that calls a function in a folder.

    Args:
        function: What to call; SystemExit sets the exit status as usual.
        folder: Working folder; the files `SAID` and `SEEN` are written there.
        may_write: Folders below which files may be changed; None allows all and watches nothing.
    """

    def __init__(
        self,
        function: Callable[[], object],
        folder: Path,
        *,
        may_write: Sequence[Path] | None = None,
    ) -> None:
        self.folder = folder
        self.started = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _child(function, folder, may_write)
        self._fd = os.pidfd_open(self.pid)

    def wait(self, seconds: float) -> bool:
        """Wait for the end for so long, and return whether the process has ended."""
        return bool(select.select([self._fd], [], [], max(seconds, 0))[0])

    def send(self, number: signal.Signals, *, to_group: bool = False) -> None:
        """Send a signal to the process, or to its whole group as a terminal does."""
        with suppress(ProcessLookupError):
            (os.killpg if to_group else os.kill)(self.pid, number)

    def ending(self, limit: float = 60) -> Ending:
        """Wait for the end, and kill the process and its children once the time is up."""
        is_late = not self.wait(limit - (time.monotonic() - self.started))
        seconds = time.monotonic() - self.started
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._fd)
        said, seen = (
            path.read_bytes() if path.exists() else b""
            for path in (self.folder / SAID, self.folder / SEEN)
        )
        return Ending(status, said, seen.decode(errors="replace").splitlines(), seconds, is_late)


def _child(function: Callable[[], object], folder: Path, may_write: Sequence[Path] | None) -> None:
    status = UNCAUGHT
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        _enter(folder)
        if may_write is not None:
            seen = os.open(folder / SEEN, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            sys.addaudithook(_hook([str(path) for path in may_write], seen))
        function()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        status = UNCAUGHT
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _enter(folder: Path) -> None:
    """Make the folder the world of the process: working folder, home, temporary files, output."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    os.chdir(folder)
    tempfile.tempdir = os.environ["TMPDIR"] = os.environ["HOME"] = str(temporary)
    sys.dont_write_bytecode = True
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    limit = MEMORY + _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _address_space() -> int:
    """Return the bytes of address space that this process already has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _hook(may_write: Sequence[str], seen: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that notes every forbidden deed."""
    roots = tuple(os.path.join(root, "") for root in (*may_write, "/dev", "/proc"))
    is_noting = False

    def note(*words: object) -> None:
        text = " ".join(str(word)[:300] for word in words)
        os.write(seen, text.encode(errors="backslashreplace").replace(b"\n", b" ") + b"\n")

    def is_outside(path: object, folder: object = None, *, follows: bool = True) -> bool:
        if isinstance(path, int) or path is None:
            return False
        inside = f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else ""
        full = os.path.join(inside, os.fsdecode(path))  # type: ignore[arg-type]
        above, name = os.path.split(full.rstrip("/"))
        full = os.path.realpath(full) if follows else f"{os.path.realpath(above)}/{name}"
        return not f"{full}/".startswith(roots)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal is_noting
        if is_noting:
            return
        is_noting = True
        try:
            if event in STARTS and not (args and STUBS in str(args[1:2])):
                note("started:", event, *args[:2])
            elif event in CONNECTS:
                note("connected:", event)
            elif event == "import" and args[0] in CANARY_MODULES:
                note("imported:", args[0])
            elif event == "open":
                path, _, flags = args
                if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and is_outside(path):
                    note("wrote outside:", path)
                elif isinstance(path, (str, bytes)) and SECRET in os.path.basename(
                    os.fsdecode(path)
                ):
                    note("read outside:", path)
            elif event in CHANGES:
                for position, folder in CHANGES[event]:
                    inside = None if folder is None else args[folder]
                    if is_outside(args[position], inside, follows=event in FOLLOWING):
                        note("changed outside:", event, args[position])
        finally:
            is_noting = False

    return hook
