"""What the tests of the modules share: the tiny data set, a training on it, and a teacher."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny
from lightning import Callback, LightningModule, Trainer

from omiad import FeatureDataModule


@pytest.fixture(scope="session")
def data(
    mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., FeatureDataModule]:
    """Build a data module of the tiny data set; all of them share one cache."""
    return partial(tiny.data_of, mvtec_root, tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def teacher(
    data: Callable[..., FeatureDataModule], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The checkpoint of an AMDM that remembers every patch."""
    module = tiny.amdm(scoring=tiny.REMEMBERING)
    return tiny.saved(tiny.fit(module, data(), tmp_path_factory.mktemp("teacher"), 6))


@pytest.fixture
def fit(data: Callable[..., FeatureDataModule], tmp_path: Path) -> Callable[..., Trainer]:
    """Train a module for some optimiser steps on the tiny data set, or on the data given."""

    def run(
        module: LightningModule,
        steps: int = 1,
        *callbacks: Callback,
        datamodule: FeatureDataModule | None = None,
        **arguments: object,
    ) -> Trainer:
        return tiny.fit(module, datamodule or data(), tmp_path, steps, *callbacks, **arguments)

    return run
