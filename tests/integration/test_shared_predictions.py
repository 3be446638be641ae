"""`omiad predict` in two processes writes what one writes, also after one was killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from omiad.cli import main
from omiad.prediction.journal import JOURNAL, journal_name

pytestmark = pytest.mark.slow

LAUNCHERS = {
    "Lightning": [sys.executable],
    "torchrun": [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
    ],
}


@pytest.fixture(scope="module")
def alone(deciding: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the predictions of one process."""
    folder = tmp_path_factory.mktemp("alone") / "out"
    main(["predict", str(deciding / "model.ckpt"), str(deciding / "parts"), f"--output={folder}"])
    return folder


@pytest.fixture
def command(deciding: Path, tmp_path: Path) -> list[str]:
    """The words of the command that predicts in two processes, without the launcher."""
    script = tmp_path / "omiad_in_two.py"
    script.write_text("from omiad.cli import main\nmain()\n")
    return [
        *(str(script), "predict", str(deciding / "model.ckpt"), str(deciding / "parts")),
        *(f"--output={tmp_path / 'out'}", "--device=cpu", "--trainer.devices=2", "--batch_size=1"),
    ]


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_write_what_one_writes(
    alone: Path, command: list[str], tmp_path: Path, launcher: str
) -> None:
    subprocess.run([*LAUNCHERS[launcher], *command], check=True, timeout=300)
    assert files(tmp_path / "out") == files(alone)


def test_a_killed_process_ends_the_run_and_the_same_command_goes_on(
    alone: Path, command: list[str], tmp_path: Path
) -> None:
    journals = [tmp_path / "out" / journal_name(rank) for rank in range(2)]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            [*LAUNCHERS["Lightning"], *command], stdout=log, stderr=log, start_new_session=True
        )
    try:
        while not (journals[1].exists() and journals[1].read_bytes().count(b"\n") > 3):
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        (second,) = children(first.pid)
        os.kill(second, signal.SIGKILL)
        assert first.wait(60) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / "predictions.csv").exists()
    done = journals[1].read_bytes().count(b"\n") - 1
    assert 0 < done < 33
    other = [word for word in command if not word.startswith("--trainer")]
    failed = subprocess.run([sys.executable, *other], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "--trainer.devices" in failed.stderr
    subprocess.run([*LAUNCHERS["Lightning"], *command], check=True, timeout=300)
    assert files(tmp_path / "out") == files(alone)
    assert JOURNAL not in files(tmp_path / "out")


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
