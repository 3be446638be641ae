"""ADD as a way to distil: heads on the frozen teacher's encoder oppose the generator."""

from typing import cast

import torch
from torch import Tensor

from omiad.diffusion import AdversarialDiffusion, Denoiser
from omiad.diffusion.adversarial_diffusion import (
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    teacher_distance,
)
from omiad.modules.diagnosis import Diagnosis
from omiad.modules.distillation import Distillation
from omiad.modules.randomness import SampleDraws
from omiad.networks import Heads, Network


class AdversarialDiffusionDistillation(Distillation):
    """Adversarial diffusion distillation with one student step, t_init.

    Args:
        teacher: Frozen teacher.
        heads: Discriminators on the levels of its encoder.
        diagnosis: Where figures are logged.
        t_max: Noisiest step the teacher judges the generator's output at.
        options: Weights of the terms.
    """

    name = "discriminator"

    def __init__(
        self,
        teacher: Denoiser,
        heads: Heads,
        diagnosis: Diagnosis,
        *,
        t_max: int,
        options: AdversarialDiffusion,
    ) -> None:
        self.teacher = teacher
        self.opponent = heads
        self.heads = heads
        self.diagnosis = diagnosis
        self.t_max = t_max
        self.options = options

    def opponent_loss(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Tensor:
        """Return the heads' hinge loss with its R1 penalty on real features (ADD eq. 3)."""
        with torch.no_grad():
            fake_levels, real_levels = self._levels(x_g), self._levels(x_0)
        inputs = [level.float().requires_grad_() for level in real_levels]
        fake, real = self.heads(fake_levels), self.heads(inputs)
        telling = hinge_discriminator_loss(real, fake).mean()
        penalty = r1_penalty(real, inputs).mean()
        for name, logits, is_right in (("real", real, 1), ("fake", fake, -1)):
            right = torch.stack([(is_right * x > 0).float().mean() for x in logits]).mean()
            self.diagnosis.log(f"discriminator_accuracy_{name}", right)
        self.diagnosis.log("discriminator_loss", telling)
        self.diagnosis.log("r1_penalty", penalty)
        return telling + self.options.r1_weight * penalty

    def generator_loss(
        self, x_g: Tensor, x_0: Tensor, draws: SampleDraws, *, adversarial: bool
    ) -> Tensor:
        """Return theta's loss: stay where the teacher would lead, look real (ADD eq. 2)."""
        t = draws.steps(self.t_max)
        schedule = self.teacher.schedule
        with torch.no_grad():
            noise = draws.normal(tuple(x_0.shape[1:]))
            estimate = self.teacher(schedule.add_noise(x_g, noise, t), t).x_0
        weight = schedule.amplitudes(t)[0].flatten()  # c(t) = alpha_t
        distance = teacher_distance(x_g, estimate, weight).mean()
        self.diagnosis.by_step(
            "teacher_error", t, (x_g - estimate).detach().square().mean((1, 2, 3))
        )
        self.diagnosis.log("distillation_loss", distance, prog_bar=True)
        distillation = self.options.lambda_distill * distance
        self.diagnosis.gradient("output_gradient_distillation", distillation, [x_g])
        if not adversarial:
            return distillation
        fooling = hinge_generator_loss(self.heads(self._levels(x_g))).mean()
        self.diagnosis.log("generator_adversarial_loss", fooling)
        self.diagnosis.gradient("output_gradient_adversarial", fooling, [x_g])
        return distillation + fooling

    def _levels(self, x: Tensor) -> list[Tensor]:
        network = cast(Network, self.teacher.network)
        step = torch.full((len(x),), self.options.feature_step, device=x.device)
        return network.encode_levels(x, step)
