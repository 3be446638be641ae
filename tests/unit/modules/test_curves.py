"""Short loss curves of both stages: golden, and the same in half precision."""

import json
from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from lightning import Callback, LightningModule, Trainer

from omiad import AMDMModule, OmiADModule
from omiad.networks import UNet
from omiad.scoring import Scoring

GOLDEN = Path("tests/goldens/loss_curves.json")
LOSSES = {
    "amdm": ["loss"],
    "omiad": [
        "student_score_loss",
        "discriminator_loss",
        "distillation_loss",
        "generator_adversarial_loss",
    ],
}
Curves = dict[str, list[float]]


class Recorder(Callback):
    """Keep what every batch logged."""

    def __init__(self) -> None:
        self.curves: Curves = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        for name, value in trainer.callback_metrics.items():
            self.curves.setdefault(name.removeprefix("train/"), []).append(float(value))


def curves_of(
    module: LightningModule, root: Path, folder: Path, steps: int, precision: str
) -> tuple[Curves, Trainer]:
    recorder = Recorder()
    trainer, _ = tiny.fit(module, root, folder, steps, recorder, precision=precision)  # type: ignore[arg-type]
    return recorder.curves, trainer


def both_stages(root: Path, folder: Path, precision: str) -> dict[str, Curves]:
    network = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
    amdm = AMDMModule(
        network,
        partial(torch.optim.Adam, lr=1e-3),
        feature_norm="channel",
        t_init=500,
        num_steps=1,
        scoring=Scoring(pool_size=4),
    )
    first, trainer = curves_of(amdm, root, folder, 12, precision)
    trainer.save_checkpoint(folder / "amdm.ckpt")
    adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.999))
    omiad = OmiADModule(
        str(folder / "amdm.ckpt"),
        adam,
        adam,
        student_warmup_fraction=0.0,
        adversarial_start_fraction=0.0,
    )
    second, _ = curves_of(omiad, root, folder, 24, precision)
    return {"amdm": first, "omiad": second}


@pytest.fixture(scope="module")
def full_precision(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curves]:
    return both_stages(mvtec_root, tmp_path_factory.mktemp("full"), "32-true")


def test_loss_curves_are_the_golden_ones(
    full_precision: dict[str, Curves], request: pytest.FixtureRequest
) -> None:
    losses = {
        stage: {name: full_precision[stage][name] for name in names}
        for stage, names in LOSSES.items()
    }
    if request.config.getoption("--update-goldens"):
        GOLDEN.write_text(json.dumps(losses, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    for stage, names in LOSSES.items():
        for name in names:
            # Other processors and versions round otherwise; a change of the method shows plainly.
            rounding = 1e-3 * max(map(abs, golden[stage][name]))
            expected = pytest.approx(golden[stage][name], rel=1e-3, abs=rounding)
            assert losses[stage][name] == expected, name


def test_half_precision_follows_the_same_curves(
    full_precision: dict[str, Curves], mvtec_root: Path, tmp_path: Path
) -> None:
    half = both_stages(mvtec_root, tmp_path, "bf16-mixed")
    for stage, names in LOSSES.items():
        for name in names:
            full = torch.tensor(full_precision[stage][name])
            gap = (torch.tensor(half[stage][name]) - full).abs().mean() / full.abs().mean()
            # 0.1 % and less was measured; 4 % where two nearly equal scores are subtracted.
            assert gap < (0.1 if name == "distillation_loss" else 0.01), (stage, name)


def test_stage_2_logs_what_its_diagnosis_needs(full_precision: dict[str, Curves]) -> None:
    names = set(full_precision["omiad"])
    bands = {"t1_248", "t249_495", "t496_742", "t743_990"}
    assert names >= {
        *LOSSES["omiad"],
        "encoder_gradient_score",
        "encoder_gradient_discriminator",
        "output_gradient_distillation",
        "output_gradient_adversarial",
        "discriminator_accuracy_real",
        "discriminator_accuracy_fake",
        "generator_steps",
        "generator_distance",
        "generator_shift_rms",
        "nonfinite_gradients",
        *(f"{name}_{band}" for name in ("student_error", "score_gap") for band in bands),
    }
    # The recorder runs before the diagnostics, and sees their figures one batch later.
    assert full_precision["omiad"]["generator_steps"] == list(range(1, 12))
