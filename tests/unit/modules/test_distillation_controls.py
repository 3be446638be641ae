"""The controls of stage 2 that tests/benchmarks measures beside Algorithm 1."""

import importlib
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from lightning import Callback
from tiny import fit

from omiad import AMDMModule, Detector
from omiad.diffusion.sampling import ddim_reconstruct
from omiad.networks import UNet
from omiad.scoring import Scoring

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NETWORK = partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))
ADAM = partial(torch.optim.Adam, lr=1e-3)


@pytest.fixture
def controls(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("distillation_controls")


@pytest.fixture(scope="module")
def teacher(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    module = AMDMModule(
        NETWORK, feature_norm="channel", t_init=500, scoring=Scoring(pool_size=4), num_steps=1
    )
    trainer, _ = fit(module, mvtec_root, folder, 20)
    trainer.save_checkpoint(folder / "amdm.ckpt")
    return folder / "amdm.ckpt"


@pytest.mark.parametrize(
    ("name", "goal"),
    [("InputRegression", "input"), ("DdimRegression", "ddim"), ("StronglyAnchoredAsd", "input")],
)
def test_a_control_moves_the_generator_alone_and_towards_its_target(
    mvtec_root: Path,
    tmp_path: Path,
    teacher: Path,
    controls: ModuleType,
    name: str,
    goal: str,
) -> None:
    module = getattr(controls, name)(str(teacher), ADAM, ADAM, student_warmup_fraction=0.0)
    trainer, data = fit(module, mvtec_root, tmp_path, 40)
    start = Detector.load(teacher).denoiser
    pairs = zip(start.parameters(), module.teacher.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y in pairs)
    assert module.num_generator_steps == 20
    assert hasattr(module, "student") is ("Asd" in name)

    features = torch.stack(list(data.features("train")))
    x_0 = module.detector.normalizer(features)
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
    # What is left of it is a detector like any.
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    loaded = Detector.load(tmp_path / "last.ckpt")
    assert torch.equal(loaded(images).score, module.detector(images).score)


def test_the_anchor_adds_the_weighted_error_to_the_generators_loss(
    mvtec_root: Path, tmp_path: Path, teacher: Path, controls: ModuleType
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
    fit(module, mvtec_root, tmp_path, 2, Recorder())
    x_0, _, x_g = module.generated
    ((total, distillation),) = errors
    error = 10 * float((x_g - x_0).square().mean())
    assert total == pytest.approx(distillation + error, rel=1e-5)
