"""What the tests of the modules share: a training on the tiny data set, and both stages."""

from pathlib import Path

import pytest
import tiny
from lightning import Callback, LightningDataModule, LightningModule, Trainer

from omiad import OmiADModule


@pytest.fixture(scope="session")
def teacher(data: tiny.Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of an AMDM that remembers every patch."""
    module = tiny.amdm(scoring=tiny.REMEMBERING)
    return tiny.saved(tiny.fit(module, data(), tmp_path_factory.mktemp("teacher"), 6))


@pytest.fixture(scope="session")
def student(
    data: tiny.Data, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OmiADModule, Path]:
    """A module that distilled the teacher, and its checkpoint."""
    module = OmiADModule(str(teacher), student_warmup_fraction=0.0)
    return module, tiny.saved(tiny.fit(module, data(), tmp_path_factory.mktemp("student"), 6))


@pytest.fixture
def fit(data: tiny.Data, tmp_path: Path) -> tiny.Fit:
    """Train a module for some optimiser steps on the tiny data set, or on the data given."""

    def run(
        module: LightningModule,
        steps: int = 1,
        *callbacks: Callback,
        datamodule: LightningDataModule | None = None,
        **arguments: object,
    ) -> Trainer:
        return tiny.fit(module, datamodule or data(), tmp_path, steps, *callbacks, **arguments)

    return run
