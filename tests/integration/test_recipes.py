"""The recipes in omiad/README.md run, with a tiny model."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import readme
from PIL import Image

from omiad.cli import main

RECIPES = (readme.CHECKOUT / "omiad" / "README.md").read_text().partition("## Five recipes")[2]


@pytest.fixture
def at_home(deciding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and photographs, one of them in a folder."""
    for name in ("model.ckpt", "photo.png", "hole.png"):
        shutil.copy(deciding / name, tmp_path)
    (tmp_path / "photos" / "bolts").mkdir(parents=True)
    shutil.copy(deciding / "photo.png", tmp_path / "photos")
    shutil.copy(deciding / "hole.png", tmp_path / "photos" / "bolts")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def blocks(heading: str, language: str = "python") -> list[str]:
    text = RECIPES.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_there_are_five() -> None:
    assert len(re.findall(r"^### ", RECIPES, re.MULTILINE)) == 5


def test_one_photograph(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("One photograph")
    exec(code, {})
    assert capsys.readouterr().out.startswith("ok bolt 0.")
    exec(code.replace("photo.png", "hole.png"), {})
    assert re.match(r"defect bolt 1\.\d+ 0\.0476\d+\n\(\d+, \d+, ", capsys.readouterr().out)


def test_a_folder(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("A folder")
    exec(code, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("hole.png defect 1.")
    assert second.startswith("photo.png ok 0.")


def test_a_camera(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs = [Image.open(at_home / name) for name in ("photo.png", "hole.png")]
    frames = iter([np.asarray(each)[..., ::-1] for each in photographs])
    written: dict[str, np.ndarray] = {}

    class Camera:
        def __init__(self, number: int) -> None:
            self.is_open = True

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return self.is_open

        def read(self) -> tuple[bool, np.ndarray | None]:
            frame = next(frames, None)
            return frame is not None, frame

        def release(self) -> None:
            self.is_open = False

    opencv = SimpleNamespace(VideoCapture=Camera, imwrite=written.__setitem__)
    monkeypatch.setitem(sys.modules, "cv2", opencv)
    (code,) = blocks("A camera")
    names: dict[str, object] = {}
    exec(code, names)
    assert not names["camera"].is_open
    assert {*np.unique(written["mask.png"])} == {0, 255}


def test_a_threshold_for_production(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("A threshold for production")
    exec(code, {})
    exec(code.replace("photo.png", "hole.png"), {})
    out = capsys.readouterr().out
    assert "20 photographs support rates from 0.048\n" in out
    assert "rate 0.1: at most 0.216 in 19 of 20 models\n" in out


def test_a_network_of_your_own(
    at_home: Path, deciding: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, load = blocks("A network of your own")
    (configuration,) = blocks("A network of your own", "yaml")
    (at_home / "my_network.py").write_text(network)
    (at_home / "my_network.yaml").write_text(configuration)
    (command,) = re.findall(r"`omiad (fit [^`]*)`", RECIPES)
    shutil.copytree(deciding / "parts", at_home / "my_parts")
    main([*command.split(), *readme.STAGE_1.replace(readme.NETWORK, "").split()])
    exec(load, {})
    assert float(capsys.readouterr().out.splitlines()[-1]) > 0
