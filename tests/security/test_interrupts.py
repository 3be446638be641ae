"""Signals at chosen moments: the run stops between two batches, and resumes to the last bit."""

import csv
import itertools
import logging
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger
from tiny import amdm, data_of, trainer_of

from omiad import OmiADModule
from omiad.callbacks import LastCheckpoint
from omiad.callbacks.checkpoint import pause
from omiad.errors import InputError
from omiad.interrupts import Interrupted, stop_requests
from omiad.modules import TrainingModule
from omiad.modules.training import logger as module_logger

STEPS = {"AMDM": 5, "OmiAD": 9}
"""8 images in batches of 4 are two batches in an epoch; one batch of psi alone comes first."""


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Any:
    module_logger.setLevel(logging.ERROR)
    yield
    module_logger.setLevel(logging.NOTSET)


class SignalAt(Callback):
    """Send a signal when a hook is called for the n-th time, counted from 0."""

    def __init__(self, hook: str, n: int, number: int = signal.SIGINT) -> None:
        calls = itertools.count()

        def send(*_: object, **__: object) -> None:
            if next(calls) == n:
                signal.raise_signal(number)

        setattr(self, hook, send)


class Runs:
    """Runs of both stages in one folder, and what they left."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.data = partial(data_of, root, folder)
        self.folder = folder
        self.whole: dict[str, Any] = {}

    def fit(self, stage: str, name: str, *callbacks: Callback, ckpt_path: Path | None = None) -> Path:
        teacher = self.folder / "teacher/checkpoints/last.ckpt"
        module = amdm() if stage == "AMDM" else OmiADModule(str(teacher))
        trainer = trainer_of(
            self.folder / name, STEPS[stage], callbacks=[*callbacks, LastCheckpoint()]
        )
        trainer.loggers = [CSVLogger(self.folder / name, name="", version="")]
        trainer.log_every_n_steps = 2
        trainer.fit(module, datamodule=self.data(), ckpt_path=ckpt_path)
        return self.folder / name / "checkpoints/last.ckpt"

    def interrupted(self, stage: str, name: str, *callbacks: Callback, **resumed: Any) -> Path:
        with pytest.raises(Interrupted) as stopped:
            self.fit(stage, name, *callbacks, **resumed)
        assert stopped.value.code in (130, 143)
        return self.folder / name / "checkpoints/last.ckpt"

    def uninterrupted(self, stage: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
        if stage not in self.whole:
            checkpoint = contents(self.fit(stage, f"whole_{stage}"))
            self.whole[stage] = checkpoint, rows(self.folder / f"whole_{stage}")
        return self.whole[stage]


def contents(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(*runs: Path) -> list[dict[str, str]]:
    """Return the filled cells of the rows of metrics.csv of all parts of a run."""
    tables = [run / "metrics.csv" for run in runs]
    found = [row for path in tables if path.is_file() for row in csv.DictReader(path.open())]
    return [{name: cell for name, cell in row.items() if cell} for row in found]


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Return the places in which two checkpoints differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [place for key in a for place in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        parts = enumerate(zip(a, b, strict=True))
        return [place for i, pair in parts for place in differences(*pair, f"{place}/{i}")]
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if equal else [place]


@pytest.fixture(scope="module")
def runs(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs(mvtec_root, tmp_path_factory.mktemp("runs"))
    runs.fit("AMDM", "teacher")
    return runs


MOMENTS = [
    ("on_train_batch_start", 0, signal.SIGINT),  # before the first batch
    ("on_before_optimizer_step", 2, signal.SIGINT),  # in stage 2 between psi and theta
    ("on_train_epoch_end", 0, signal.SIGTERM),
    ("on_save_checkpoint", 0, signal.SIGTERM),  # while a checkpoint is written
]


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize(("hook", "n", "number"), MOMENTS)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(
    runs: Runs, tmp_path: Path, stage: str, hook: str, n: int, number: int
) -> None:
    whole, table = runs.uninterrupted(stage)
    part = runs.interrupted(stage, f"{tmp_path}/part", SignalAt(hook, n, number))
    end = runs.fit(stage, f"{tmp_path}/end", ckpt_path=part)
    assert contents(part)["global_step"] < STEPS[stage] or hook == "on_save_checkpoint"
    assert differences(whole, contents(end)) == []
    assert rows(tmp_path / "part", tmp_path / "end") == table
