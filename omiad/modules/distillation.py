"""The ways to distil a teacher into a generator: what opposes the generator, and both losses."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from omiad.diffusion import Denoised, Denoiser, Weighting
from omiad.diffusion.losses import (
    discriminator_logits,
    discriminator_loss,
    distillation_weight,
    generator_adversarial_loss,
    score_distillation_loss,
    student_loss,
    timestep_weight,
)
from omiad.modules.diagnosis import Diagnosis
from omiad.modules.randomness import SampleDraws
from omiad.networks import Network


class Distillation(ABC):
    """Two losses in turn: first the opponent's, then, with the opponent frozen, the generator's.

    Attributes:
        opponent: What is trained beside the generator.
        name: What a sentence calls it.
    """

    opponent: nn.Module
    name: str

    @abstractmethod
    def opponent_loss(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Tensor:
        """Return the opponent's loss for generated x_g, detached, and real x_0 (B, C, h, w)."""

    @abstractmethod
    def generator_loss(
        self, x_g: Tensor, x_0: Tensor, draws: SampleDraws, *, adversarial: bool
    ) -> Tensor:
        """Return the generator's loss for its output x_g (B, C, h, w), with its graph.

        Args:
            x_g: Generated features.
            x_0: The real ones.
            draws: Random numbers of the batch.
            adversarial: Whether the adversarial term has joined yet.
        """


class ScoreDistillation(Distillation):
    """Adversarial score distillation (Algorithm 1): the opponent is the student score psi.

    Its encoder is the discriminator.

    Args:
        teacher: Frozen teacher score phi.
        student: Student score psi.
        diagnosis: Where figures are logged.
        t_max: Noisiest step the scores are compared at.
        alpha: Weight of the squared term in eq. 15.
        lambda_student_adv: Weight of the discriminator's loss beside psi's denoising loss.
        lambda_generator_adv: Weight of the adversarial loss beside the distillation loss.
        weighting: gamma(t) of psi's loss.
        generator_weighting: gamma(t) of eq. 15.
    """

    name = "student"

    def __init__(
        self,
        teacher: Denoiser,
        student: Denoiser,
        diagnosis: Diagnosis,
        *,
        t_max: int,
        alpha: float,
        lambda_student_adv: float,
        lambda_generator_adv: float,
        weighting: Weighting,
        generator_weighting: Literal["sid", "one"],
    ) -> None:
        self.teacher = teacher
        self.opponent: nn.Module = student
        self.student = student
        self.diagnosis = diagnosis
        self.t_max = t_max
        self.alpha = alpha
        self.lambda_student_adv = lambda_student_adv
        self.lambda_generator_adv = lambda_generator_adv
        self.weighting: Weighting = weighting
        self.generator_weighting = generator_weighting

    def opponent_loss(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Tensor:
        """Return psi's loss: denoise x_g (eq. 13), tell x_0 from x_g (eq. 17); Alg. 1 line 9."""
        t = draws.steps(self.t_max)
        noise = draws.normal(tuple(x_0.shape[1:]))
        schedule = self.student.schedule
        x_t, y_t = schedule.add_noise(x_g, noise, t), schedule.add_noise(x_0, noise, t)
        output, encoding = self._network.forward_and_encode(x_t, t)
        weight = timestep_weight(
            self.weighting, schedule, t, parameterization=self.student.parameterization
        )
        per_sample = student_loss(self.student.interpret(output, x_t, t), x_g, weight)
        self.diagnosis.by_step("student_error", t, per_sample / weight)
        score = per_sample.mean()
        self.diagnosis.log("student_score_loss", score)
        self.diagnosis.gradient("encoder_gradient_score", score, self._encoder_parameters)
        if not self.lambda_student_adv:
            return score
        fake = discriminator_logits(encoding)
        real = discriminator_logits(self._network.encode(y_t, t))
        telling = discriminator_loss(real, fake).mean()
        self.diagnosis.log("discriminator_loss", telling)
        self.diagnosis.log("discriminator_accuracy_real", (real > 0).float().mean())
        self.diagnosis.log("discriminator_accuracy_fake", (fake < 0).float().mean())
        adversarial = self.lambda_student_adv * telling
        self.diagnosis.gradient(
            "encoder_gradient_discriminator", adversarial, self._encoder_parameters
        )
        return score + adversarial

    def generator_loss(
        self, x_g: Tensor, x_0: Tensor, draws: SampleDraws, *, adversarial: bool
    ) -> Tensor:
        """Return theta's loss: distil the teacher (eq. 15), fool psi's encoder (eq. 18).

        Gradients run through the inputs of both frozen networks.
        """
        t = draws.steps(self.t_max)
        schedule = self.teacher.schedule
        x_t = schedule.add_noise(x_g, draws.normal(tuple(x_0.shape[1:])), t)
        teacher: Denoised = self.teacher(x_t, t)
        output, encoding = self._network.forward_and_encode(x_t, t)
        student = self.student.interpret(output, x_t, t)
        if self.generator_weighting == "sid":
            weight = distillation_weight(x_g, teacher)
        else:
            alpha, sigma = schedule.amplitudes(t)
            weight = ((alpha / sigma) ** 2).flatten()
        gap = (teacher.x_0 - student.x_0).square().mean((1, 2, 3))
        self.diagnosis.by_step("score_gap", t, gap)
        per_sample = score_distillation_loss(x_g, teacher, student, weight=weight, alpha=self.alpha)
        distillation = per_sample.mean()
        self.diagnosis.log("distillation_loss", distillation, prog_bar=True)
        self.diagnosis.gradient("output_gradient_distillation", distillation, [x_g])
        if not (adversarial and self.lambda_generator_adv):
            return distillation
        fooling = generator_adversarial_loss(discriminator_logits(encoding))
        self.diagnosis.log("generator_adversarial_loss", fooling.mean())
        if self.generator_weighting == "one":
            weight = torch.ones_like(weight)  # it was the way from x_0 space to noise space
        weighted = self.lambda_generator_adv * (weight * fooling).mean()
        self.diagnosis.gradient("output_gradient_adversarial", weighted, [x_g])
        return distillation + weighted

    @property
    def _network(self) -> Network:
        return cast(Network, self.student.network)

    @property
    def _encoder_parameters(self) -> Sequence[Tensor]:
        return list(self._network.encoder_parameters())
