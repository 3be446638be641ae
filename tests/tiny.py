"""Both stages on a data set of a few pixels, on the CPU."""

from functools import partial
from pathlib import Path

import torch
from lightning import Callback, LightningModule, Trainer

from omiad import AMDMModule, FeatureDataModule, OmiADModule
from omiad.networks import UNet
from omiad.scoring import Scoring

NETWORK = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))


def data_of(root: Path, folder: Path, **arguments: object) -> FeatureDataModule:
    """8 x 8 features of a backbone with random weights."""
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
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(
    module: LightningModule,
    root: Path,
    folder: Path,
    steps: int,
    *callbacks: Callback,
    batch_size: int = 4,
    **arguments: object,
) -> tuple[Trainer, FeatureDataModule]:
    """Train for so many optimiser steps, logging each."""
    data = data_of(root, folder, batch_size=batch_size)
    trainer = trainer_of(folder, steps, callbacks=list(callbacks), log_every_n_steps=1, **arguments)
    trainer.fit(module, datamodule=data)
    return trainer, data


def amdm(**arguments: object) -> AMDMModule:
    defaults: dict[str, object] = {
        "network": NETWORK,
        "feature_norm": "channel",
        "t_init": 500,
        "num_steps": 1,
        "scoring": Scoring(pool_size=4),
    }
    return AMDMModule(**(defaults | arguments))  # type: ignore[arg-type]


def fit_and_save(module: LightningModule, root: Path, folder: Path, steps: int) -> Path:
    """Train, and return the checkpoint."""
    trainer, _ = fit(module, root, folder, steps)
    path = folder / "last.ckpt"
    trainer.save_checkpoint(path)
    return path


def distilled(
    root: Path, folder: Path, teacher: Path, max_steps: int, **arguments: object
) -> tuple[OmiADModule, Trainer]:
    module = OmiADModule(str(teacher), **arguments)  # type: ignore[arg-type]
    trainer, _ = fit(module, root, folder, max_steps)
    return module, trainer


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
