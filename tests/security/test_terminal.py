"""Names from data and from the command line never command the terminal."""

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table

from omiad.cli import COMMANDS, main
from omiad.metrics.table import HEADINGS, figures_table
from omiad.progress import track
from omiad.terminal import Console, EscapedStream, console, escaped_output

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08[new]:smile:\u202e"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\x9b31m\r\x08[new]:smile:\u202e"
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Return all that was printed, after checking that nothing of it is a command."""
    captured = capsys.readouterr()
    assert not CONTROLS.findall(captured.out + captured.err)
    return captured.out + captured.err


@pytest.mark.parametrize("command", [*COMMANDS, HOSTILE, "data"])
def test_an_unknown_word_does_not_command_the_terminal(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command.split(), f"--{HOSTILE}=1"])
    assert exit_info.value.code == 2
    assert "omiad" in printed(capsys)


@pytest.mark.parametrize(
    "command",
    [
        "fit --config=configs/amdm_folder.yaml --data.root=PATH --run_dir=PATH/run",
        "test --ckpt_path=PATH/x.ckpt",
        "predict PATH/x.ckpt PATH",
        "predict PATH/x.ckpt PATH/gone",
        "evaluate --root=PATH --maps=PATH",
        "compare PATH/a PATH/b",
        "report PATH/a --out=PATH/out",
        "data check --data.root=PATH",
        "data holdout PATH PATH/out",
        "data synthesize PATH",
        "cache build --data.root=PATH --data.weights=PATH/gone",
        "cache info --cache_dir=PATH/gone",
        "cache verify --cache_dir=PATH/gone",
        "cache prune --cache_dir=PATH",
        "sweep mvtec PATH --configs=PATH",
        "table 1 --output=PATH",
        "typeset PATH/a --table=1 --output=PATH/x.csv",
        "demo --output=PATH --configs=PATH",
    ],
)
def test_a_hostile_path_is_shown_escaped(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / (HOSTILE + os.fsdecode(b"\xff"))
    (folder / "train/good").mkdir(parents=True)
    for name in ("x.ckpt", f"{HOSTILE}.png", f"train/good/{HOSTILE}.png"):
        (folder / name).write_bytes(b"broken")
    try:
        main([word.replace("PATH", str(folder)) for word in command.split()])
    except SystemExit as end:
        assert end.code in (0, 1, 2)  # noqa: PT017
    assert r"\x1b[2J\x1b]0;owned\x07" in "".join(printed(capsys).split())


@pytest.fixture
def screen() -> Iterator[io.StringIO]:
    """What the one console writes to a terminal with colours."""
    stream = io.StringIO()
    before = vars(console()).copy()
    vars(console()).update(vars(Console(file=stream, force_terminal=True, width=100)))
    yield stream
    vars(console()).update(before)


def test_a_table_on_a_terminal_has_the_colours_of_rich_alone(screen: io.StringIO) -> None:
    table = Table("name", title=HOSTILE, caption=HOSTILE, style="red")
    table.add_row(HOSTILE, style="bold")
    console().print(table, HOSTILE)
    rows = {name: ["-"] * len(HEADINGS) for name in ("[new]", "[/bold]", ":smile:", HOSTILE)}
    console().print(figures_table(rows))
    text = screen.getvalue()
    assert "\x1b[1m" in text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not CONTROLS.findall(plain)
    assert plain.count(SHOWN) == 4
    for name in ("[new]", "[/bold]", ":smile:"):
        assert name in plain


def test_a_progress_bar_shows_a_name_as_it_is(screen: io.StringIO) -> None:
    assert list(track([1, 2], HOSTILE)) == [1, 2]
    moves = re.compile(r"\x1b\[(\d*[mAK]|\?25[lh]|[0-9;]*m)|\r")
    plain = moves.sub("", screen.getvalue())
    assert not CONTROLS.findall(plain)
    assert SHOWN in plain


def test_whatever_a_library_prints_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("some.library")
    with escaped_output():
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        logger.warning(HOSTILE)
        logger.removeHandler(handler)
        sys.stdout.write(HOSTILE)
        sys.stdout.writelines([HOSTILE, "\n"])
        print(HOSTILE)  # noqa: T201
    assert printed(capsys).count(r"\x1b[2J") == 4
    assert not isinstance(sys.stdout, EscapedStream)


def test_a_name_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "gone\nomiad: all is well", "--out=gone"])
    assert [line[:2] for line in printed(capsys).splitlines()] == ["om", "  "]


def test_a_terminal_that_lacks_a_character_shows_its_escape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    with escaped_output():
        sys.stdout.write("gerät\n")
        console().print("größe")
    stream.flush()
    assert stream.buffer.getvalue().split() == [rb"ger\xe4t", rb"gr\xf6\xdfe"]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_on_a_real_terminal_only_rich_moves_the_cursor(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    (tmp_path / "parts/train/good").mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"parts/train/good/{i}{HOSTILE}.png").write_bytes(b"broken")
    ours, theirs = pty.openpty()
    code = "from omiad.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "check", f"--data.root={tmp_path}/parts"]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 1 << 16):
                seen += part
        except OSError:  # the other end is closed
            pass
        process.wait()
    os.close(ours)
    text = re.sub(r"\x1b\[(\d*[mAK]|\?25[lh]|[0-9;]*m)|\r", "", seen.decode())
    assert not CONTROLS.findall(text)
    assert r"\x1b[2J\x1b]0;owned\x07" in "".join(text.split())
