"""Both stages on a data set of a few pixels, on the CPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from PIL import Image
from synthetic import write_mvtec

from omiad import AMDMModule, Detector, FeatureDataModule
from omiad.calibration import calibrate
from omiad.learning import learn_products
from omiad.networks import UNet
from omiad.scoring import Scoring

NETWORK = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))

Data = Callable[..., FeatureDataModule]
Fit = Callable[..., Trainer]
"""Types of the fixtures of the same names."""

REMEMBERING = Scoring(pool_size=4, memory_size=10_000)
"""Keeps every patch, since the data set has fewer."""


def data_of(root: Path, folder: Path, **arguments: object) -> FeatureDataModule:
    """8 x 8 features of a backbone with random weights; the folder gets the cache."""
    defaults: dict[str, object] = {"batch_size": 4, "feature_size": 8, "image_size": 32}
    return FeatureDataModule(
        str(root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        cache_dir=str(folder / "cache"),
        **(defaults | arguments),  # type: ignore[arg-type]
    )


def trainer_of(folder: Path, max_steps: int, **arguments: object) -> Trainer:
    return Trainer(
        **arguments,  # type: ignore[arg-type]
        accelerator="cpu",
        max_steps=max_steps,
        log_every_n_steps=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def amdm(**arguments: object) -> AMDMModule:
    defaults: dict[str, object] = {
        "network": NETWORK,
        "feature_norm": "channel",
        "t_init": 500,
        "num_steps": 1,
        "scoring": Scoring(pool_size=4),
    }
    return AMDMModule(**(defaults | arguments))  # type: ignore[arg-type]


def fit(
    module: LightningModule,
    data: LightningDataModule,
    folder: Path,
    steps: int,
    *callbacks: Callback,
    **arguments: object,
) -> Trainer:
    """Train for so many optimiser steps."""
    trainer = trainer_of(folder, steps, callbacks=list(callbacks), **arguments)
    trainer.fit(module, datamodule=data)
    return trainer


def saved(trainer: Trainer) -> Path:
    """Save a checkpoint in the folder of a trainer."""
    path = Path(trainer.default_root_dir) / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def deciding(folder: Path) -> Path:
    """Write a model that knows bolts and nuts, photo.png of a good bolt, and hole.png."""
    write_mvtec(
        folder / "parts", np.random.default_rng(0), categories=("bolt", "nut"), num_train=24
    )
    data = data_of(folder / "parts", folder)
    source = saved(fit(amdm(scoring=Scoring(pool_size=4, memory_size=64)), data, folder, 1))
    detector, features = Detector.load(source), data.features("train")
    fitted = {"bolt": range(4), "nut": range(24, 28)}
    kept = {"bolt": range(4, 24), "nut": range(28, 48)}
    calibrate(detector, features, fitted)
    learn_products(detector, features, fitted, kept)
    detector.save(folder / "model.ckpt", like=source)
    photograph = Image.open(folder / "parts" / "bolt" / "test" / "good" / "001.png")
    photograph.save(folder / "photo.png")
    photograph.paste((255, 0, 0), (12, 12, 15, 15))
    photograph.save(folder / "hole.png")
    return folder / "model.ckpt"


class Recorder(Callback):
    """Keep what every batch logged."""

    def __init__(self) -> None:
        self.curves: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        for name, value in trainer.callback_metrics.items():
            self.curves.setdefault(name.removeprefix("train/"), []).append(float(value))


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
