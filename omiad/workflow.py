"""`omiad train`: from photographs of good parts to a model that decides, in one command."""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal

import torch
import yaml
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from omiad.calibration import learn_products
from omiad.configurations import find_configuration
from omiad.conformal import check_rate, normals_needed, smallest_rate
from omiad.data import FeatureDataModule
from omiad.data.check import check
from omiad.data.layouts import Layout
from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError
from omiad.files import only_writer, write_whole
from omiad.lightning_cli import OmiadCLI
from omiad.progress import duration
from omiad.report import report
from omiad.tiling import WHOLE

logger = logging.getLogger(__name__)

Preset = Literal["quick", "standard", "long"]

STEPS: dict[Preset, tuple[int, int]] = {
    "quick": (200, 100),
    "standard": (1200, 400),
    "long": (9600, 800),
}
"""Optimiser steps of stage 1 and of stage 2."""

CONFIGURATIONS = ("amdm_folder", "omiad_folder")
"""The configurations of the two stages."""

REPORT = "report.html"
"""Name of the page in the output folder."""

CALIBRATION_SHARE = 0.3
"""Share of the photographs of a product that set its threshold, where it has enough."""

TIMES_STAGE_1 = 4
"""A batch of stage 2, as long as so many steps of stage 1 (measured on a CPU)."""


@dataclass(frozen=True)
class Settings:
    """What a model is made of; only a run with the same settings goes on with its folder."""

    photos: str
    layout: Layout
    preset: Preset
    false_alarms: float | None
    backbone: str
    weights: str
    tiles: list[int] | None
    seed: int


def train(
    photos: str,
    *,
    out: str = "model",
    preset: Preset = "standard",
    false_alarms: float | None = None,
    layout: Layout = "auto",
    backbone: str = "tf_efficientnet_lite2",
    weights: str = "package",
    tiles: list[int] | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Path:
    """Train one model on photographs of good parts of all products, and let the model decide.

    The command checks the photographs, trains both stages, sets a threshold for each product, and
    tests the model if there are photographs of defects. It writes model.ckpt, report.html and log/
    to the output folder. Give the same command again to go on after an interruption.

    Args:
        photos: Folder of photographs: of one product, or with a folder for each product.
        out: Folder to write to.
        preset: quick takes a few minutes, standard is the measured default, long is for a night.
        false_alarms: Share of normal photographs that may be called defective, such as 0.01. By
            default 1 %, or the lowest share that the photographs of a product support.
        layout: Layout of the folder, as for `omiad fit`.
        backbone: Model name in timm.
        weights: package, pretrained, random, or a file, as for `omiad fit`.
        tiles: Rows and columns of overlapping tiles that each photograph is cut into; by
            default nothing is cut. `omiad data check` recommends a grid where one helps.
        device: cpu, cuda, mps, or auto for a GPU if there is one.
        seed: Seed of initial weights, noise and data order.

    Returns:
        The path of model.ckpt.

    Raises:
        InputError: If the photographs have faults or are too few for the rate of false alarms, or
            if the output folder holds another model.
    """
    root = str(Path(photos).expanduser().resolve())
    settings = Settings(root, layout, preset, false_alarms, backbone, weights, tiles, seed)
    folder = Path(out)
    (folder / "log").mkdir(parents=True, exist_ok=True)
    with only_writer(folder / "log" / "lock", owner=folder):
        model = Model(folder, settings, pick_device(device))
        for step in (
            *(model.check, model.stage_1, model.stage_2),
            *(model.decide, model.test, model.report),
        ):
            model.run(step)
    logger.info("model: %s", model.path)
    logger.info("report: %s", folder / REPORT)
    logger.info("next: omiad predict --ckpt_path %s --images PHOTOS", model.path)
    return model.path


class Model:
    """A model that is made in a folder, one step after another; a second call skips what is done.

    log/state.json holds the settings and the steps that are done.

    Args:
        folder: The output folder.
        settings: What the model is made of.
        device: Where the model is trained and calibrated.

    Raises:
        InputError: If the folder holds a model with other settings.
    """

    def __init__(self, folder: Path, settings: Settings, device: torch.device) -> None:
        self.folder, self.settings, self.device = folder, settings, device
        self.log, self.path = folder / "log", folder / "model.ckpt"
        self.done: list[str] = []
        self._state = self.log / "state.json"
        if self._state.is_file():
            stored = json.loads(self._state.read_text())
            if stored["settings"] != asdict(settings):
                raise InputError(
                    f"'{folder}' holds a model of other photographs or settings. Choose another "
                    f"--out, or give the command that began it."
                )
            self.done = stored["done"]

    def run(self, step: Callable[[], None]) -> None:
        """Take a step, unless it is done, and note it."""
        if (name := step.__name__) not in self.done:
            step()
            self.done.append(name)
            state = {"settings": asdict(self.settings), "done": self.done}
            write_whole(self._state, json.dumps(state, indent=2) + "\n")

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
        for name in self.data.categories:
            self._check_number(name, kept[name] or fitted[name])
        logger.info("expected time: %s", duration(self.expected_seconds()))

    def _check_number(self, name: str, num_normal: int) -> None:
        rate, lowest = self.settings.false_alarms, smallest_rate(num_normal)
        if rate is not None:
            check_rate(rate)
            if num_normal < normals_needed(rate):
                raise InputError(
                    f"'{name}' has {num_normal} photographs that can set its threshold, which "
                    f"support false-alarm rates from {lowest:.2g}, but {rate:g} was asked for. "
                    f"Take {normals_needed(rate)} photographs, or give a higher --false_alarms."
                )
        logger.info(
            "%s: %d photographs set the threshold; lowest false-alarm rate %.2g",
            name,
            num_normal,
            lowest,
        )

    def stage_1(self) -> None:
        """Train AMDM."""
        self._fit(1, [])

    def stage_2(self) -> None:
        """Distil AMDM into OmiAD."""
        self._fit(2, [f"--model.teacher={self._checkpoint('stage_1')}"])

    def _fit(self, stage: int, more: list[str]) -> None:
        name, steps = f"stage_{stage}", STEPS[self.settings.preset][stage - 1]
        earlier = self._checkpoint(name)
        options = [f"--run_dir={self._new(name)}", f"--trainer.accelerator={self._accelerator}"]
        if earlier is not None:
            options += [f"--ckpt_path={earlier}"]
        else:
            options += [f"--config={find_configuration(CONFIGURATIONS[stage - 1])}", *more]
            options += [f"--seed_everything={self.settings.seed}", f"--trainer.max_steps={steps}"]
            options += [f"--data.{name}={value}" for name, value in self._data_options.items()]
        OmiadCLI(["fit", *options], work=f"stage {stage} of 2")

    def decide(self) -> None:
        """Set the threshold of each product, and write the model."""
        source = str(self._checkpoint("stage_2"))
        detector = Detector.load(source, device=self.device)
        detector.false_alarms = self.settings.false_alarms
        self.data.use_extractor(detector.extractor)
        train, kept = self.data.samples("train"), self.data.samples("calibration")
        fitted: dict[str, list[int]] = {name: [] for name in self.data.categories}
        held_out: dict[str, list[int]] = {name: [] for name in self.data.categories}
        for i, sample in enumerate(train):
            fitted[sample.category].append(i)
        for i, sample in enumerate(kept, start=len(train)):
            held_out[sample.category].append(i)
        features: Dataset[Tensor] = self.data.features("train")
        if len(kept):
            features = ConcatDataset([features, self.data.features("calibration")])
        learn_products(detector, features, fitted, held_out)
        detector.save(self.path, like=source)

    def test(self) -> None:
        """Measure the model on photographs of defects, if there are any."""
        if any(sample.is_anomalous for sample in self.data.samples("test")):
            run = f"--run_dir={self._new('test')}"
            OmiadCLI(["test", run, f"--ckpt_path={self.path}"])

    def report(self) -> None:
        """Write a page of the test, if there was one, and of the training."""
        runs = [path for name in ("test", "stage_1", "stage_2") for path in self._runs(name)[-1:]]
        page = self._new("report")
        report([str(path) for path in runs], out=str(page))
        write_whole(self.folder / REPORT, (page / "index.html").read_bytes())

    def expected_seconds(self) -> float:
        """Estimate the time of all steps from a batch of the backbone and two training steps."""
        extractor = self.data.extractor
        canvas, grid = extractor.tiling.canvas, extractor.feature_size
        images = torch.zeros(2, 3, *canvas, dtype=torch.uint8, device=self.device)
        per_image = _seconds(lambda: extractor.features(images)) / len(images)
        config = yaml.safe_load(find_configuration(CONFIGURATIONS[0]).read_text())
        build = resolve_name(config["model"]["init_args"]["network"])
        network = build(channels=extractor.num_channels).to(self.device)
        x = torch.randn(config["data"]["batch_size"], extractor.num_channels, grid, grid)
        x, t = x.to(self.device), torch.ones(len(x), dtype=torch.int64, device=self.device)
        per_step = _seconds(lambda: network(x, t).square().mean().backward())
        first, second = STEPS[self.settings.preset]
        num_images = sum(
            len(self.data.samples(split)) for split in ("train", "calibration", "test")
        )
        return 3 * num_images * per_image + (first + TIMES_STAGE_1 * second / 2) * per_step

    @cached_property
    def data(self) -> FeatureDataModule:
        """The photographs."""
        config = yaml.safe_load(find_configuration(CONFIGURATIONS[0]).read_text())["data"]
        return FeatureDataModule(**{**config, **self._data_options})

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
    def _accelerator(self) -> str:
        return {"cuda": "gpu"}.get(self.device.type, self.device.type)

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


def _seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes, the second time it is done."""
    work()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
