"""ADD in stage 2's module: what moves, what is logged, and what a checkpoint holds."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny import NETWORK, Fit, Recorder, amdm, same, saved, weights

from omiad import Detector
from omiad.errors import InputError
from omiad.modules import ADDModule
from omiad.networks import DiT, Network, UViT

ADAM = partial(torch.optim.Adam, lr=1e-4, betas=(0.0, 0.99))


@pytest.mark.parametrize(
    ("network", "precision"),
    [
        pytest.param(NETWORK, "32-true", id="UNet"),
        pytest.param(partial(DiT, dim=16, depth=2, num_heads=2), "32-true", id="DiT"),
        pytest.param(partial(UViT, dim=16, depth=2, num_heads=2), "32-true", id="UViT"),
        pytest.param(NETWORK, "bf16-mixed", id="half precision", marks=pytest.mark.slow),
    ],
)
def test_heads_and_generator_move_and_the_teacher_stays(
    fit: Fit, network: Callable[[int], Network], precision: str
) -> None:
    teacher = saved(fit(amdm(network=network), 2, precision=precision))
    start = Detector.load(teacher).denoiser
    module = ADDModule(
        str(teacher), ADAM, ADAM, student_warmup_fraction=0.0, adversarial_start_fraction=0.0
    )
    recorder = Recorder()
    trainer = fit(module, 6, recorder, precision=precision)
    assert same(weights(module.teacher), weights(start))
    assert not same(weights(module.generator), weights(start))
    assert not hasattr(module, "student")
    assert all(p.grad is None for p in module.teacher.parameters())
    # Within the hinge's margins real and generated pull equally at a head's last bias.
    still = {n for n, p in module.heads.named_parameters() if not p.grad.any()}
    assert still <= {f"heads.{k}.4.bias" for k in range(len(module.heads.heads))}
    assert all(p.requires_grad for p in module.heads.parameters())
    assert module.num_generator_steps == 3
    logged = {name: values[-1] for name, values in recorder.curves.items()}
    assert logged.keys() >= {
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
    assert logged["output_gradient_adversarial"] > 0
    # There is a head for every level of the teacher's encoder.
    x = torch.zeros(1, module.detector.extractor.num_channels, 8, 8)
    levels = module.teacher.network.encode_levels(x, torch.tensor([1]))
    logits = module.heads(levels)
    assert [y.shape[1:] for y in logits] == [(1, *level.shape[2:]) for level in levels]
    # The checkpoint holds a detector.
    path = saved(trainer)
    record = torch.load(path, weights_only=True)["omiad"]
    assert (record["module"], record["detector"]["kind"]) == ("ADDModule", "OmiAD")
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert torch.equal(Detector.load(path)(images).score, module.detector(images).score)


@pytest.mark.parametrize("name", ["lambda_distill", "r1_weight"])
def test_a_negative_weight_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}.* at least 0.*-1"):
        ADDModule("amdm.ckpt", **{name: -1.0})
