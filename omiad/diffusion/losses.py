"""Losses of both stages; each returns one value per sample, (B,), and the modules take the mean.

Stage 1 (AMDM) trains the teacher phi by `masked_denoising_loss`. Stage 2 (ASD) trains the student
psi by `student_loss` and `discriminator_loss`, and the generator theta by
`score_distillation_loss` and `generator_adversarial_loss`. ||x||^2 is a mean over elements, not a
sum; the paper's weights lambda depend on this choice.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.diffusion.parameterization import Denoised, DenoiseFn
from omiad.diffusion.schedule import NoiseSchedule
from omiad.errors import InputError

Weighting = Literal["auto", "one", "alpha_bar", "snr", "min_snr_5"]


def _sample_mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def timestep_weight(
    weighting: Weighting, schedule: NoiseSchedule, t: Tensor, *, parameterization: str
) -> Tensor:
    """Return gamma(t) of eq. 11, the weight of an error in x_0, (B,).

    The paper does not define gamma. "auto" is one for networks that predict v or x_0. For networks
    that predict epsilon it is alpha_bar, which bounds the loss at both ends of the schedule even
    under masking.
    """
    if weighting not in get_args(Weighting):
        raise InputError(
            f"weighting must be one of {', '.join(get_args(Weighting))}, but got '{weighting}'."
        )
    if weighting == "auto":
        weighting = "alpha_bar" if parameterization == "epsilon" else "one"
    alpha, sigma = (amplitude.flatten() for amplitude in schedule.amplitudes(t))
    if weighting == "one":
        return torch.ones_like(alpha)
    if weighting == "alpha_bar":
        return alpha**2
    snr = (alpha / sigma) ** 2
    return snr.clamp(max=5.0) if weighting == "min_snr_5" else snr


def masked_denoising_loss(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    x_0: Tensor,
    *,
    noise: Tensor,
    t: Tensor,
    keep: Tensor,
    weight: Tensor,
) -> Tensor:
    """Return the loss of AMDM, eqs. 9 to 11: gamma(t) ||x_0_hat - x_0||^2 on masked features.

    The network sees x_t = alpha x_m + sigma noise with x_m = x_0 * M (eq. 6), so it must also
    inpaint what the mask hides; the visible features are not rescaled. Without a mask this is
    eq. 5, ||noise_hat - noise||^2, weighted by gamma(t) (sigma / alpha)^2.

    Args:
        denoise: The denoiser in training.
        schedule: Noise schedule.
        x_0: Clean features (B, C, H, W).
        noise: Standard normal noise (B, C, H, W).
        t: Steps (B,), integers in 1..T.
        keep: Mask M, broadcastable to x_0: 1 keeps a feature and 0 hides it.
        weight: gamma(t), (B,).
    """
    estimate = denoise(schedule.add_noise(x_0 * keep, noise, t), t)
    return weight * _sample_mean((estimate.x_0 - x_0) ** 2)


def student_loss(estimate: Denoised, x_g: Tensor, weight: Tensor) -> Tensor:
    """Return the student's loss, eq. 13 in x_0 form: gamma(t) ||x_0_hat - x_g||^2, (B,).

    ||x_0_hat - x_g||^2 = (sigma / alpha)^2 ||noise_hat - noise||^2, so gamma is that of stage 1.

    Args:
        estimate: The student's estimate for the noised x_g.
        x_g: Generated features (B, C, H, W), detached from the generator.
        weight: gamma(t), (B,).
    """
    return weight * _sample_mean((estimate.x_0 - x_g) ** 2)


def distillation_weight(x_g: Tensor, teacher: Denoised) -> Tensor:
    """Return SiD's per-sample weight 1 / mean |x_g - x_0_hat|, detached, (B,).

    Source: SiD, training/sid_loss.py, generator_loss (the normalisation of its loss in x_0).
    """
    return 1 / _sample_mean((x_g - teacher.x_0).detach().abs()).clamp(min=1e-5)


def score_distillation_loss(
    x_g: Tensor, teacher: Denoised, student: Denoised, *, weight: Tensor, alpha: float = 1.0
) -> Tensor:
    """Return the generator's distillation loss, eqs. 15, 16 and 27 in x_0 form, (B,).

    The loss is gamma (<d, x_0_phi - x_g> - alpha ||d||^2) with
    d = x_0_phi - x_0_psi = (sigma / alpha_t) (noise_psi - noise_phi). Gradients must reach x_g
    through the inputs of both frozen networks; with detached inputs the noise form has none.

    Deviation: Algorithm 1, line 13, subtracts alpha ||d||^2 from an expression that already
    contains it. That makes alpha effectively 2, with which an over-dispersed generator diverges.

    Args:
        x_g: Generated features (B, C, H, W), with their graph.
        teacher: The estimate of phi for the noised x_g, with its graph.
        student: The estimate of psi for the noised x_g, with its graph.
        weight: gamma, (B,), detached. The caller passes SiD's `distillation_weight`.
        alpha: Weight of the squared term; 0.5 is unbiased for the Fisher divergence.
    """
    gap = teacher.x_0 - student.x_0
    return weight * _sample_mean(gap * (teacher.x_0 - x_g) - alpha * gap**2)


def discriminator_logits(encoding: Tensor) -> Tensor:
    """Average an encoding (B, C', H', W') over channels: logits (B, 1, H', W') (section 3.3.2).

    D = sigmoid(logit). Source: SiDA, training/sida_networks.py.
    """
    return encoding.float().mean(dim=1, keepdim=True)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the discriminator's loss, eq. 17: the mean cross-entropy of real and fake, (B,).

    Deviation: eq. 17 is minimised but printed without its minus sign.
    """
    return (_sample_mean(F.softplus(-real_logits)) + _sample_mean(F.softplus(fake_logits))) / 2


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Return the generator's adversarial loss, eq. 18: -ln D(x_t), (B,).

    Deviation: eq. 18 prints the mean of D itself, which a generator would lower by minimising it.
    """
    return _sample_mean(F.softplus(-fake_logits))
