import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for `synthetic`

from synthetic import write_mvtec


@pytest.fixture(autouse=True)
def name_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages name the command instead of pytest."""
    monkeypatch.setattr(sys, "argv", ["omiad"])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute with one thread everywhere, in fixtures of a whole module too."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def signals_arrive() -> None:
    """Let SIGINT through, which a shell turns off for a job in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def mvtec_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only data set: bottle and cable with 4 train, 3 good and 3 bad images of 32 x 32."""
    root = tmp_path_factory.mktemp("data") / "tiny"
    write_mvtec(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="session")
def data(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Build a data module of the tiny data set, a `tiny.Data`; all of them share one cache."""
    from tiny import data_of  # noqa: PLC0415 (Lightning takes seconds to import)

    return partial(data_of, mvtec_root, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def deciding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model.ckpt that decides, with photo.png and hole.png."""
    from tiny import deciding  # noqa: PLC0415 (Lightning takes seconds to import)

    return deciding(tmp_path_factory.mktemp("deciding")).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="rewrite tests/goldens")
    parser.addoption("--weights-dir", help="folder of backbone weights in timm's naming")
