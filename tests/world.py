"""A small world that attacks start from: data, models, tests, maps, photographs, a cache."""

import csv
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from synthetic import write_mvtec, write_realiad, write_visa
from watched import Watched

from omiad import FeatureDataModule
from omiad.cli import main

QUIET = "--trainer.accelerator=cpu --trainer.enable_progress_bar=false"
TRAINER = f"{QUIET} --trainer.log_every_n_steps=1 --trainer.max_epochs=-1"
DATA = (
    "--data.backbone=test_efficientnet.r160_in1k --data.weights=random --data.image_size=32 "
    "--data.feature_size=8 --data.batch_size=4"
)
AMDM = (
    "--model=omiad.modules.AMDMModule --model.network=omiad.networks.UNet --model.network.width=8 "
    "--model.network.multipliers=[1,2] --model.network.num_blocks=1 "
    "--model.network.attention_factors=[2] --model.feature_norm=channel --model.t_init=500 "
    "--model.num_steps=2 --model.scoring.pool_size=4"
)
EVALUATE = "--image_size=32 --pool_size=4 --num_resamples=10"


@dataclass(frozen=True)
class World:
    """The paths of a small world; nothing may change the files."""

    home: Path

    @property
    def data(self) -> Path:
        """A data set in the MVTec layout: bottle and cable, 4 train, 3 good and 3 bad each."""
        return self.home / "data"

    @property
    def cache(self) -> Path:
        """The feature caches of the data set."""
        return self.home / "cache"

    @property
    def teacher(self) -> Path:
        """The checkpoint of stage 1."""
        return self.home / "amdm" / "checkpoints" / "last.ckpt"

    @property
    def student(self) -> Path:
        """The checkpoint of stage 2."""
        return self.home / "omiad" / "checkpoints" / "last.ckpt"

    @property
    def decider(self) -> Path:
        """The model of stage 2 with thresholds."""
        return self.home / "deciding.ckpt"

    @property
    def models(self) -> dict[str, Path]:
        """Each checkpoint, by the name of its stage."""
        return {"amdm": self.teacher, "omiad": self.student, "deciding": self.decider}

    @property
    def tested(self) -> Path:
        """The run folder of a test of stage 2, with its maps."""
        return self.home / "tested-omiad"

    @property
    def photographs(self) -> Path:
        """Six photographs."""
        return self.home / "photographs"

    @property
    def page(self) -> Path:
        """The page of a report on the test."""
        return self.home / "page" / "index.html"

    def resumed(self, stage: str) -> Path:
        """The checkpoint of a run that went on from the one of a stage, two batches more."""
        return self.home / f"resumed-{stage}" / "checkpoints" / "last.ckpt"

    def more_steps(self, stage: str) -> int:
        """Return the optimiser steps at which a resumed run ends."""
        return {"amdm": 5, "omiad": 11}[stage]

    @cached_property
    def checkpoints(self) -> dict[str, dict[str, Any]]:
        """The content of each checkpoint, by the name of its stage."""
        return {name: torch.load(path, weights_only=True) for name, path in self.models.items()}

    @cached_property
    def figures(self) -> dict[str, Any]:
        """The figures of the categories in a test of each checkpoint."""
        files = {name: self.home / f"tested-{name}" / "results.json" for name in self.models}
        return {name: json.loads(file.read_text())["categories"] for name, file in files.items()}

    @cached_property
    def features(self) -> list[torch.Tensor]:
        """The cached features of the training images."""
        features = data_of(self, str(self.cache)).features("train")
        return [features[index].clone() for index in range(len(features))]

    @cached_property
    def statistics(self) -> Any:
        """The statistics of the features of the training images."""
        return data_of(self, str(self.cache)).features("train").statistics

    @cached_property
    def scores(self) -> dict[str, dict[str, str]]:
        """What each checkpoint says about each photograph."""
        return {name: scores_in(self.home / f"scored-{name}") for name in self.models}

    def load(self) -> None:
        """Read what attacks share, before a process forks."""
        _ = self.checkpoints, self.figures, self.scores, self.features, self.statistics


def data_of(world: World, cache_dir: str) -> FeatureDataModule:
    """Return the data module of the runs in a world, with its extractor and another cache."""
    data = FeatureDataModule(
        str(world.data),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        cache_dir=cache_dir,
        image_size=32,
        feature_size=8,
        batch_size=4,
    )
    data.use_extractor(data.build_extractor(None))
    return data


def scores_in(predictions: Path) -> dict[str, str]:
    """Return score, p-value and decision of each row of `omiad predict`, by its file name."""
    with (predictions / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        rows = [*csv.DictReader(file)]
    said = ("score", "p_value", "decision")
    return {Path(row["image"]).name: " ".join(row[name] for name in said) for row in rows}


def build(home: Path) -> World:
    """Build the world in a process of its own, since a process that has trained cannot be forked.

    Raises:
        RuntimeError: If a command fails.
    """
    world = World(home)
    if not world.page.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        ending = Watched(lambda: _write(world), home).ending(limit=600)
        if ending.status != 0:
            raise RuntimeError(ending.said.decode())
    return world


def _write(world: World) -> None:
    torch.set_num_threads(1)
    write_mvtec(world.data, np.random.default_rng(0))
    write_visa(world.home / "visa", np.random.default_rng(0))
    write_realiad(world.home / "realiad", np.random.default_rng(0))
    world.photographs.mkdir()
    for number, path in enumerate(sorted(world.data.glob("bottle/test/*/*.png"))):
        shutil.copy(path, world.photographs / f"{number}.png")
    data = f"{DATA} --data.root={world.data} --data.cache_dir={world.cache}"
    run(f"fit --run_dir={world.home}/amdm {TRAINER} {AMDM} {data} --trainer.max_steps=3")
    run(
        f"fit --run_dir={world.home}/omiad {TRAINER} --model=omiad.modules.OmiADModule "
        f"--model.teacher={world.teacher} --data.batch_size=4 --trainer.max_steps=6"
    )
    for name, path in (("amdm", world.teacher), ("omiad", world.student)):
        steps, again = world.more_steps(name), f"{world.home}/resumed-{name}"
        run(f"fit --ckpt_path={path} --run_dir={again} {QUIET} --trainer.max_steps={steps}")
    run(f"calibrate {world.student} {world.data} --out={world.decider} --device=cpu")
    for name, path in world.models.items():
        run(f"test --ckpt_path={path} --run_dir={world.home}/tested-{name} {QUIET} --save_maps")
        out = world.home / f"scored-{name}"
        run(f"predict {path} {world.photographs} --output={out} --overlays=all --device=cpu")
    run(f"report {world.tested} --out {world.page.parent}")


def run(command: str) -> None:
    """Run the words of a command."""
    main(command.split())
