"""The controls of stage 2 that tests/benchmarks measures beside Algorithm 1."""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning import Callback
from tiny import Fit, same, weights

from omiad import Detector
from omiad.diffusion.sampling import ddim_reconstruct

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ADAM = partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture
def controls(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("distillation_controls")


@pytest.mark.parametrize(
    ("name", "goal"),
    [
        ("InputRegression", "input"),
        pytest.param("DdimRegression", "ddim", marks=pytest.mark.slow),
        pytest.param("StronglyAnchoredAsd", "input", marks=pytest.mark.slow),
    ],
)
def test_a_control_moves_the_generator_alone_and_towards_its_target(
    fit: Fit, teacher: Path, controls: ModuleType, name: str, goal: str
) -> None:
    module = getattr(controls, name)(str(teacher), ADAM, ADAM, student_warmup_fraction=0.0)
    fit(module, 40)
    start = Detector.load(teacher).denoiser
    assert same(weights(module.teacher), weights(start))
    assert module.num_generator_steps == 20
    assert hasattr(module, "student") is ("Asd" in name)
    x_0 = module.detector.normalizer(torch.stack(list(module.data.features("train"))))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    targets = {
        "input": x_0,
        "ddim": ddim_reconstruct(start, start.schedule, x_0, noise, t_init=500, num_steps=10),
    }
    was, now = (
        (module.reconstruct(denoiser, x_0, noise) - targets[goal]).square().mean()
        for denoiser in (start, module.generator)
    )
    assert now < was


def test_the_anchor_adds_the_weighted_error_to_the_generators_loss(
    fit: Fit, teacher: Path, controls: ModuleType
) -> None:
    errors: list[tuple[float, float]] = []

    class Recorder(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            if optimizer is trainer.optimizers[1]:
                total, logged, *_ = pl_module.losses
                errors.append((total.item(), logged["distillation_loss"].item()))

    module = controls.StronglyAnchoredAsd(
        str(teacher), ADAM, ADAM, student_warmup_fraction=0.0, adversarial_start_fraction=1.0
    )
    fit(module, 2, Recorder())
    x_0, _, x_g = module.generated
    ((total, distillation),) = errors
    error = 10 * float((x_g - x_0).square().mean())
    assert total == pytest.approx(distillation + error, rel=1e-5)
