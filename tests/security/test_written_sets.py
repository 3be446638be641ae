"""`omiad data synthesize` and `omiad data holdout` write a whole set, or none."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from omiad.data.holdout import hold_out
from omiad.data.layouts import index_dataset
from omiad.data.layouts.synthetic import synthesize
from omiad.errors import InputError
from omiad.files import only_writer, whole_folder

SMALL = {"categories": ("bricks",), "image_size": 32, "num_train": 5, "num_test_good": 1}
DRAW = partial(synthesize, num_test_defective=2, **SMALL)
PLACES = {"synthesize": "omiad.data.layouts.synthetic", "hold_out": "omiad.data.holdout"}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("products") / "data"
    DRAW(root)
    return root


@pytest.fixture(params=PLACES)
def command(request, products, monkeypatch):
    """Return a command that writes a set, its name, and what it calls for each image."""
    write = DRAW if request.param == "synthesize" else partial(hold_out, products, num_defective=3)
    return write, f"{PLACES[request.param]}.save_image"


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left")])
def test_a_set_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, command, number, error):
    write, name = command
    calls, save = iter(range(number)), __import__("omiad.data.images").data.images.save_image

    def interrupted(*args: object) -> None:
        if next(calls, None) is None:
            raise error
        save(*args)

    with monkeypatch.context() as patch:
        patch.setattr(name, interrupted)
        with pytest.raises((KeyboardInterrupt, MemoryError, InputError)):
            write(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert index_dataset(tmp_path / "out").samples


def test_a_second_process_that_writes_the_same_set_is_refused(tmp_path, command):
    write, _ = command
    lock = only_writer(tmp_path / ".out.lock", owner=tmp_path / "out")
    with lock, pytest.raises(InputError, match=r"Another process is writing to '.*out'"):
        write(tmp_path / "out")
    write(tmp_path / "out")


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path(), Path("../here"), tmp_path / "here"):
        with pytest.raises(InputError, match="Choose a new folder"), whole_folder(path):
            pass


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("kind", PLACES)
def test_a_killed_command_leaves_no_set_under_the_final_name(products, tmp_path, kind):
    words = ["synthesize", "out", "--image_size=64", "--num_train=20"]
    words = words if kind == "synthesize" else ["holdout", str(products), "out"]
    code = "from omiad.cli import main; main()"
    for i in range(4):
        folder = tmp_path / str(i)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", code, "data", *words], cwd=folder, stdout=subprocess.DEVNULL
        )
        while not any(folder.rglob("*.png")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(0.05 * i)
        process.send_signal(signal.SIGKILL)
        if process.wait() != 0:
            assert not (folder / "out").exists()
            with pytest.raises(InputError):
                index_dataset(folder)
        if kind == "hold_out":
            hold_out(products, folder / "out2", num_defective=1)
            assert index_dataset(folder / "out2").samples
