"""ADD in stage 2's module: what moves, what is logged, and what a checkpoint holds."""

from functools import partial
from pathlib import Path

import pytest
import tiny
import torch
from lightning import Callback, LightningModule, Trainer

from omiad import AMDMModule, Detector
from omiad.errors import InputError
from omiad.modules import ADDModule
from omiad.networks import DiT, UNet, UViT
from omiad.scoring import Scoring

NETWORKS = {
    "UNet": partial(UNet, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,)),
    "DiT": partial(DiT, dim=16, depth=2, num_heads=2),
    "UViT": partial(UViT, dim=16, depth=2, num_heads=2),
}
ADAM = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.99))


class Recorder(Callback):
    """Keep what was logged last."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.logged = {name: float(value) for name, value in trainer.callback_metrics.items()}


def fit(
    module: LightningModule, root: Path, folder: Path, steps: int, **options: str
) -> tuple[Trainer, dict[str, float]]:
    recorder = Recorder()
    trainer, _ = tiny.fit(module, root, folder, steps, recorder, **options)  # type: ignore[arg-type]
    return trainer, recorder.logged


@pytest.fixture(scope="module", params=NETWORKS)
def teacher(
    request: pytest.FixtureRequest, mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    module = AMDMModule(
        NETWORKS[request.param], feature_norm="channel", t_init=500, scoring=Scoring(pool_size=4)
    )
    trainer, _ = fit(module, mvtec_root, folder, 2)
    trainer.save_checkpoint(folder / "amdm.ckpt")
    return folder / "amdm.ckpt"


def distil_by_add(
    root: Path, folder: Path, teacher: Path, *, precision: str = "32-true", **add: float
) -> tuple[ADDModule, Trainer, dict[str, float]]:
    module = ADDModule(
        str(teacher),
        ADAM,
        ADAM,
        **add,
        student_warmup_fraction=0.0,
        adversarial_start_fraction=0.0,
    )
    trainer, logged = fit(module, root, folder, 6, precision=precision)
    return module, trainer, logged


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    "precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)]
)
def test_heads_and_generator_move_and_the_teacher_stays(
    mvtec_root: Path, tmp_path: Path, teacher: Path, precision: str
) -> None:
    module, trainer, logged = distil_by_add(mvtec_root, tmp_path, teacher, precision=precision)
    start = Detector.load(teacher).denoiser
    assert same(module.teacher, start)
    assert not same(module.generator, start)
    assert not hasattr(module, "student")
    assert all(p.grad is None for p in module.teacher.parameters())
    # Within the hinge's margins real and generated pull equally at a head's last bias.
    still = {n for n, p in module.heads.named_parameters() if not p.grad.any()}  # type: ignore[union-attr]
    assert still <= {f"heads.{k}.4.bias" for k in range(len(module.heads.heads))}
    assert all(p.requires_grad for p in module.heads.parameters())
    assert module.num_generator_steps == 3
    assert {name.removeprefix("train/") for name in logged} >= {
        "discriminator_loss",
        "r1_penalty",
        "distillation_loss",
        "generator_adversarial_loss",
        "output_gradient_distillation",
        "output_gradient_adversarial",
        "discriminator_accuracy_real",
        "discriminator_accuracy_fake",
        "generator_distance",
        "generator_shift_rms",
    }
    assert all(torch.isfinite(torch.tensor(list(logged.values()))))
    assert logged["train/output_gradient_adversarial"] > 0
    # The heads stand on every level of the teacher's encoder.
    x = torch.zeros(1, module.detector.extractor.num_channels, 8, 8)
    levels = module.teacher.network.encode_levels(x, torch.tensor([1]))  # type: ignore[operator]
    logits = module.heads(levels)
    assert [y.shape[1:] for y in logits] == [(1, *level.shape[2:]) for level in levels]
    # A checkpoint is a detector like any, whatever stood beside the generator.
    trainer.save_checkpoint(tmp_path / "add.ckpt")
    record = torch.load(tmp_path / "add.ckpt", weights_only=True)["omiad"]
    assert (record["module"], record["detector"]["kind"]) == ("ADDModule", "OmiAD")
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    loaded = Detector.load(tmp_path / "add.ckpt")
    assert torch.equal(loaded(images).score, module.detector(images).score)


@pytest.mark.parametrize("name", ["lambda_distill", "r1_weight"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.* at least 0.*-1"):
        ADDModule("amdm.ckpt", **{name: -1.0})
