"""Two processes train the same model as one with twice the batch."""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer

from omiad import AMDMModule, FeatureDataModule, OmiADModule
from omiad.callbacks import LastCheckpoint
from omiad.networks import UNet
from omiad.scoring import Scoring

pytestmark = pytest.mark.slow


def checkpoint_of(
    module: LightningModule, root: Path, folder: Path, steps: int, *, ranks: int
) -> Path:
    data = FeatureDataModule(
        str(root),
        backbone="test_efficientnet.r160_in1k",
        weights="random",
        cache_dir=str(root.parent / "cache"),
        batch_size=8 // ranks,
        feature_size=8,
        image_size=32,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="auto" if ranks == 1 else "ddp_fork",
        max_steps=steps,
        default_root_dir=folder / str(ranks),
        callbacks=[LastCheckpoint()],
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    return folder / str(ranks) / "checkpoints" / "last.ckpt"


def weights(path: Path, part: str) -> torch.Tensor:
    state = torch.load(path, weights_only=True)["state_dict"]
    return torch.cat([v.flatten() for k, v in state.items() if k.startswith(f"{part}.network.")])


def test_two_ranks_train_as_one(mvtec_root: Path, tmp_path: Path) -> None:
    network = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
    sgd = partial(torch.optim.SGD, lr=1e-2)  # Adam would blow rounding up to whole steps

    def stage_1(ranks: int) -> Path:
        module = AMDMModule(
            network,
            sgd,
            feature_norm="channel",
            t_init=500,
            num_steps=1,
            scoring=Scoring(pool_size=4),
        )
        return checkpoint_of(module, mvtec_root, tmp_path / "amdm", 3, ranks=ranks)

    teachers = [stage_1(ranks) for ranks in (1, 2)]
    for part in ("denoiser", "detector.denoiser"):
        one, two = (weights(path, part) for path in teachers)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)

    def stage_2(ranks: int) -> Path:
        module = OmiADModule(
            str(teachers[0]),
            sgd,
            partial(torch.optim.SGD, lr=10.0),  # its gradients are small
            student_warmup_fraction=0.2,
            adversarial_start_fraction=0.3,
        )
        return checkpoint_of(module, mvtec_root, tmp_path / "omiad", 12, ranks=ranks)

    distilled = [stage_2(ranks) for ranks in (1, 2)]
    for part in ("student", "generator", "teacher", "detector.denoiser"):
        one, two = (weights(path, part) for path in distilled)
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    moved = weights(distilled[0], "generator") - weights(distilled[0], "teacher")
    assert moved.abs().max() > 1e-3
