"""Adversarial diffusion distillation (ADD, Sauer et al. 2024), the baseline of Table 3."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from omiad.diffusion.adversarial_diffusion import (
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    teacher_distance,
)
from omiad.errors import InputError
from omiad.modules.omiad import Losses, OmiADModule
from omiad.modules.randomness import SampleDraws
from omiad.modules.training import seeded
from omiad.networks import Heads, Network

FEATURE_STEP = 1
"""Step at which the teacher's encoder reads features: nearly clean ones."""

HEAD_WIDTH = 64
"""Channels inside each head."""


class ADDModule(OmiADModule):
    """Distil by ADD instead of Algorithm 1. ADD's student is the generator, with one step, t_init.

    In place of psi, discriminator heads on the levels of the frozen teacher's encoder are trained;
    alpha, weighting and the two lambda_*_adv have no effect.

    Deviation: ADD's discriminator looks through a DINOv2 and is conditioned on text; here the heads
    look through the teacher's encoder and are conditioned on nothing.

    Args:
        teacher: Checkpoint of the AMDM to distil.
        lambda_distill: Weight of the distance to the teacher's estimate beside the adversarial loss
            (ADD eq. 2).
        r1_weight: Weight of the R1 penalty on the inputs of the heads (ADD section 3.2, gamma).
        options: Arguments of `OmiADModule`; student_optimizer trains the heads (ADD's is 1e-4).
    """

    def __init__(
        self,
        teacher: str,
        *args: Any,
        lambda_distill: float = 2.5,
        r1_weight: float = 1e-5,
        **options: Any,
    ) -> None:
        super().__init__(teacher, *args, **options)
        if min(lambda_distill, r1_weight) < 0:
            raise InputError(
                f"lambda_distill and r1_weight must be at least 0, but got {lambda_distill} and "
                f"{r1_weight}."
            )
        self.lambda_distill = lambda_distill
        self.r1_weight = r1_weight

    def build_critic(self) -> None:
        """Build the heads on the levels of the teacher's encoder."""
        channels = [level.shape[1] for level in self._levels(self.detector.noise[0])]
        with seeded(self.seed):
            self.heads = Heads(channels, HEAD_WIDTH)

    @property
    def critic(self) -> nn.Module:
        """The discriminator heads."""
        return self.heads

    def critic_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        """Return the hinge loss of the heads with its R1 penalty on real features (ADD eq. 3)."""
        with torch.no_grad():
            fake_levels, real_levels = self._levels(x_g), self._levels(x_0)
        inputs = [level.float().requires_grad_() for level in real_levels]
        fake, real = self.heads(fake_levels), self.heads(inputs)
        hinge = hinge_discriminator_loss(real, fake).mean()
        penalty = r1_penalty(real, inputs).mean()
        accuracy = {
            f"discriminator_accuracy_{name}": torch.stack(
                [(sign * x > 0).float().mean() for x in logits]
            ).mean()
            for name, logits, sign in (("real", real, 1), ("fake", fake, -1))
        }
        logged = {**accuracy, "discriminator_loss": hinge, "r1_penalty": penalty}
        return Losses(hinge + self.r1_weight * penalty, logged, {}, {})

    def generator_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        """Return theta's losses: stay at the teacher's estimate, and look real (ADD eq. 2)."""
        t = draws.steps(self.t_max)
        schedule = self.teacher.schedule
        with torch.no_grad():
            noise = draws.normal(tuple(x_0.shape[1:]))
            estimate = self.teacher(schedule.add_noise(x_g, noise, t), t).x_0
        weight = schedule.amplitudes(t)[0].flatten()  # c(t) = alpha_t
        distance = teacher_distance(x_g, estimate, weight).mean()
        distillation = self.lambda_distill * distance
        logged = {"distillation_loss": distance}
        gradients = {"output_gradient_distillation": (distillation, [x_g])}
        total = distillation
        if self.is_adversarial:
            adversarial = hinge_generator_loss(self.heads(self._levels(x_g))).mean()
            total = distillation + adversarial
            logged["generator_adversarial_loss"] = adversarial
            gradients["output_gradient_adversarial"] = (adversarial, [x_g])
        error = (x_g - estimate).detach().square().mean((1, 2, 3))
        return Losses(total, logged, gradients, {"teacher_error": (t, error)})

    def _levels(self, x: Tensor) -> list[Tensor]:
        step = torch.full((len(x),), FEATURE_STEP, device=x.device)
        return cast(Network, self.teacher.network).encode_levels(x, step)
