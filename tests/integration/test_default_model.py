"""The default model itself: EfficientNet-b4, 272 x 32 x 32 features, the U-Net of 40 M."""

from pathlib import Path

import pytest
import torch

from omiad.cli import main

NUM_STEPS = 20


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_default_model_trains_both_stages_on_a_cpu(
    mvtec_root: Path, tmp_path: Path, precision: str
) -> None:
    torch.set_num_threads(2)
    shared = [
        f"--data.root={mvtec_root}",
        f"--data.cache_dir={tmp_path / 'cache'}",
        "--data.batch_size=2",
        "--data.num_workers=0",
        f"--trainer.precision={precision}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=-1",
        "--trainer.log_every_n_steps=1",
        "--trainer.enable_progress_bar=false",
    ]
    teacher = tmp_path / "amdm" / "checkpoints" / "last.ckpt"
    main(
        [
            "fit",
            "--config=configs/amdm_mvtec.yaml",
            "--data.weights=random",
            "--model.num_steps=1",
            f"--run_dir={tmp_path / 'amdm'}",
            f"--trainer.max_steps={NUM_STEPS}",
            *shared,
        ]
    )
    main(
        [
            "fit",
            "--config=configs/omiad_mvtec.yaml",
            f"--model.teacher={teacher}",
            f"--run_dir={tmp_path / 'omiad'}",
            f"--trainer.max_steps={2 * NUM_STEPS}",
            *shared,
        ]
    )
    for checkpoint in (teacher, tmp_path / "omiad" / "checkpoints" / "last.ckpt"):
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())
