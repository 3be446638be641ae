"""A fit of any module on a data set of a few pixels."""

from pathlib import Path
from typing import Literal

from lightning import Callback, LightningModule, Trainer

from omiad import FeatureDataModule


def fit(
    module: LightningModule,
    root: Path,
    folder: Path,
    steps: int,
    *callbacks: Callback,
    batch_size: int = 4,
    precision: Literal["32-true", "bf16-mixed"] = "32-true",
) -> tuple[Trainer, FeatureDataModule]:
    """Train on 8 x 8 features of a random backbone, on the CPU, for so many optimiser steps."""
    data = FeatureDataModule(
        str(root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        cache_dir=str(folder / "cache"),
        batch_size=batch_size,
        feature_size=8,
        image_size=32,
    )
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data)
    return trainer, data
