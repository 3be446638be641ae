"""The steps from photographs of good parts to a model that decides."""

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch

from omiad.configurations import find_configuration
from omiad.conformal import smallest_rate
from omiad.data import FeatureDataModule
from omiad.data.check import check
from omiad.data.datamodule import Split
from omiad.data.layouts import Layout
from omiad.detector import Detector
from omiad.errors import InputError
from omiad.files import write_whole
from omiad.forecast import expected_seconds
from omiad.guarantee import guarantee_table
from omiad.learning import learn_products
from omiad.lightning_cli import OmiadCLI
from omiad.products import check_numbers
from omiad.progress import duration
from omiad.report import report
from omiad.settings import read_config
from omiad.terminal import console
from omiad.tiling import WHOLE
from omiad.updating import CALIBRATION_SHARE, normals

logger = logging.getLogger(__name__)

Preset = Literal["quick", "standard", "long"]

STEPS: dict[Preset, tuple[int, int]] = {
    "quick": (200, 100),
    "standard": (2400, 400),
    "long": (9600, 800),
}
"""Optimiser steps of stage 1 and of stage 2."""

CONFIGURATIONS = ("amdm_folder", "omiad_folder")
"""The configurations of the two stages."""

REPORT = "report.html"
"""Name of the page in the output folder."""


@dataclass(frozen=True)
class Settings:
    """What a model is made of; only a run with the same settings goes on with its folder."""

    photos: str
    layout: Layout
    preset: Preset | None  # None for the steps of the configurations
    false_alarms: float | None
    backbone: str
    weights: str
    tiles: list[int] | None
    seed: int


class Model:
    """A model that is made in a folder, one step after another.

    Args:
        folder: The output folder.
        settings: What the model is made of.
        device: Where the model is trained and calibrated.
        configs: Configurations of stage 1 and stage 2, by name or path.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        device: torch.device,
        *,
        configs: tuple[str, str] = CONFIGURATIONS,
    ) -> None:
        self.folder, self.settings, self.device, self.configs = folder, settings, device, configs
        self.log, self.path = folder / "log", folder / "model.ckpt"

    def check(self) -> None:
        """Refuse photographs with faults, or too few; say how long the model will take."""
        settings = self.settings
        if not check(settings.photos, layout=settings.layout):
            raise InputError(
                f"The photographs in '{settings.photos}' have the errors above. Correct them, and "
                f"give the same command again."
            )
        kept = Counter(sample.category for sample in self.data.samples("calibration"))
        fitted = Counter(sample.category for sample in self.data.samples("train"))
        num_normal = {name: kept[name] or fitted[name] for name in self.data.categories}
        check_numbers(num_normal, self.settings.false_alarms)
        for name, number in num_normal.items():
            lowest = smallest_rate(number)
            said = "%s: %d photographs set the threshold; lowest false-alarm rate %.2g"
            logger.info(said, name, number, lowest)
        splits: tuple[Split, ...] = ("train", "calibration", "test")
        seconds = expected_seconds(
            self.data.extractor,
            self._config(1),
            steps=self._steps,
            images={name: len(self.data.samples(name)) for name in splits},
            products=len(self.data.categories),
        )
        logger.info("expected time: %s", duration(seconds))

    def stage_1(self) -> None:
        """Train AMDM."""
        self._fit(1, [])

    def stage_2(self) -> None:
        """Distil AMDM into OmiAD."""
        self._fit(2, [f"--model.teacher={self._checkpoint('stage_1')}"])

    def _fit(self, stage: int, more: list[str]) -> None:
        name = f"stage_{stage}"
        earlier = self._checkpoint(name)
        options = [f"--run_dir={self._new(name)}", *self._hardware]
        if earlier is not None:
            options += [f"--ckpt_path={earlier}"]
        else:
            options += [f"--config={find_configuration(self.configs[stage - 1])}", *more]
            options += [f"--seed_everything={self.settings.seed}"]
            options += [f"--trainer.max_steps={self._steps[stage - 1]}"]
            options += [f"--data.{name}={value}" for name, value in self._data_options.items()]
        OmiadCLI(["fit", *options], work=f"stage {stage} of 2")

    def decide(self) -> None:
        """Set the threshold of each product, and write the model."""
        logger.info("thresholds: scoring the normal photographs of each product")
        source = str(self._checkpoint("stage_2"))
        detector = Detector.load(source, device=self.device)
        detector.false_alarms = self.settings.false_alarms
        self.data.use_extractor(detector.extractor)
        learn_products(detector, *normals(self.data))
        console().print(guarantee_table(detector.products, detector.false_alarms))
        detector.save(self.path, like=source)

    def test(self) -> None:
        """Measure the model on photographs of defects, if there are any."""
        if any(sample.is_anomalous for sample in self.data.samples("test")):
            run = f"--run_dir={self._new('test')}"
            OmiadCLI(["test", run, f"--ckpt_path={self.path}", *self._hardware])

    def report(self) -> None:
        """Write a page of the test, if there was one, and of the training."""
        runs = [
            str(run)
            for name in ("test", "stage_1", "stage_2")
            for run in self._runs(name)
            if any((run / file).is_file() for file in ("results.json", "metrics.csv"))
        ]
        page = self._new("report")
        report(runs, out=str(page))
        write_whole(self.folder / REPORT, (page / "index.html").read_bytes())

    @cached_property
    def data(self) -> FeatureDataModule:
        """The photographs."""
        return FeatureDataModule(**{**self._config(1)["data"], **self._data_options})

    @property
    def _steps(self) -> tuple[int, int]:
        """Optimiser steps of both stages."""
        if self.settings.preset is not None:
            return STEPS[self.settings.preset]
        return self._config(1)["trainer"]["max_steps"], self._config(2)["trainer"]["max_steps"]

    def _config(self, stage: int) -> dict[str, Any]:
        """Return the configuration of a stage."""
        path = find_configuration(self.configs[stage - 1])
        return cast(dict[str, Any], read_config(path))

    @property
    def _data_options(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "root": settings.photos,
            "layout": settings.layout,
            "backbone": settings.backbone,
            "weights": settings.weights,
            "tiles": settings.tiles or [*WHOLE],
            "calibration_share": CALIBRATION_SHARE,
        }

    @property
    def _hardware(self) -> list[str]:
        """Options that keep a run on the device; by default it would take every GPU."""
        kind, index = {"cuda": "gpu"}.get(self.device.type, self.device.type), self.device.index
        devices = f"[{index}]" if kind == "gpu" and index is not None else "1"
        return [f"--trainer.accelerator={kind}", f"--trainer.devices={devices}"]

    def _runs(self, name: str) -> list[Path]:
        """Return the run folders of a step in the order in which they were begun."""
        return sorted(self.log.glob(f"{name}.*"), key=lambda path: int(path.suffix[1:]))

    def _new(self, name: str) -> Path:
        """Return a run folder that does not exist yet."""
        runs = self._runs(name)
        return self.log / f"{name}.{int(runs[-1].suffix[1:]) + 1 if runs else 1}"

    def _checkpoint(self, name: str) -> Path | None:
        """Return the newest checkpoint of a stage."""
        files = [run / "checkpoints" / "last.ckpt" for run in reversed(self._runs(name))]
        return next(filter(Path.is_file, files), None)
