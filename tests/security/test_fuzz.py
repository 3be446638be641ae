"""1,000 seeded attacks of each kind, and commands that are killed, interrupted and starved."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

if not hasattr(os, "pidfd_open"):
    pytest.skip("needs processes of Linux", allow_module_level=True)


def fuzz(module: str, *options: object, folder: Path) -> None:
    """Run the attacks in a process of their own, since one that has trained cannot be forked."""
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, options)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("checkpoint-structure", "checkpoint-class", "checkpoint-pickle", "checkpoint-bytes"),
        *("results", "maps", "scores", "names", "images", "masks", "configurations", "caches"),
    ],
)
def test_a_thousand_attacks_end_cleanly(kind: str, tmp_path: Path) -> None:
    fuzz("fuzz", kind, "--number", 1000, folder=tmp_path)


@pytest.mark.slow
def test_disturbed_commands_lose_nothing(tmp_path: Path) -> None:
    fuzz("soak", "--number", 5, "--minutes", 2, folder=tmp_path)
