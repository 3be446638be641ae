"""Losses of both stages, one value per sample; the modules take the mean.

Stage 1 (AMDM): `masked_denoising_loss`. Stage 2 (ASD): `student_loss` and `discriminator_loss`
for the student score psi, `score_distillation_loss` and `generator_adversarial_loss` for the
generator theta. Squared norms are means over elements, not sums; the lambdas count on it.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.diffusion.masking import apply_mask
from omiad.diffusion.parameterization import Denoised, DenoiseFn
from omiad.diffusion.schedule import NoiseSchedule
from omiad.errors import InputError

Weighting = Literal["auto", "one", "alpha_bar", "snr", "min_snr_5"]
Target = Literal["x0", "noise"]


def _sample_mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)


def timestep_weight(
    weighting: Weighting, schedule: NoiseSchedule, t: Tensor, *, parameterization: str
) -> Tensor:
    """Return gamma(t) of eq. 11 for an x_0-space error, (B,).

    The paper does not print gamma. "auto" is alpha_bar for an epsilon-network, which keeps both
    ends of the schedule bounded under masking, and one for v- and x0-networks.

    Raises:
        InputError: If the weighting is unknown.
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
    target: Target = "x0",
) -> Tensor:
    """Train a denoiser on masked, noisy features: eqs. 9 to 11, or eq. 5 for target "noise".

    With x_m = x_0 * M and x_t = alpha x_m + sigma noise the loss is
    gamma(t) ||x_0_hat - x_0||^2: the network must also inpaint what the mask hid. Target "noise"
    asks for the added noise only, gamma(t) ||noise_hat - noise||^2.

    Args:
        denoise: The denoiser being trained.
        schedule: Noise schedule.
        x_0: Clean features (B, C, H, W).
        noise: Standard normal, like x_0.
        t: Steps (B,), integers in 1..T.
        keep: Mask that broadcasts to x_0, 1 where features stay.
        weight: gamma(t), (B,).
        target: What the error is measured in.

    Returns:
        Loss of each sample, (B,).
    """
    estimate = denoise(schedule.add_noise(apply_mask(x_0, keep), noise, t), t)
    if target == "noise":
        return weight * _sample_mean((estimate.noise - noise) ** 2)
    return weight * _sample_mean((estimate.x_0 - x_0) ** 2)


def student_loss(estimate: Denoised, x_g: Tensor, weight: Tensor) -> Tensor:
    """Fit the student score to the generator's output: eq. 13 in x_0 form, (B,).

    ||x_0_hat - x_g||^2 = (sigma / alpha)^2 ||noise_hat - noise||^2, so the weight is stage 1's.

    Args:
        estimate: The student's answer for the noised x_g.
        x_g: Generated features (B, C, H, W), detached from the generator.
        weight: gamma(t), (B,).
    """
    return weight * _sample_mean((estimate.x_0 - x_g) ** 2)


def distillation_weight(x_g: Tensor, teacher: Denoised) -> Tensor:
    """Return SiD's per-sample weight 1 / mean |x_g - x_0_hat|, detached, (B,).

    Source: SiD, training/sid_loss.py, generator_loss (the normalisation of its x_0-space loss).
    """
    return 1 / _sample_mean((x_g - teacher.x_0).detach().abs()).clamp(min=1e-5)


def score_distillation_loss(
    x_g: Tensor, teacher: Denoised, student: Denoised, *, weight: Tensor, alpha: float = 1.0
) -> Tensor:
    """Distil the teacher's score into the generator: eqs. 15, 16 and 27 in x_0 form, (B,).

    With d = x_0_phi - x_0_psi = (sigma / alpha_t) (noise_psi - noise_phi):
    gamma (<d, x_0_phi - x_g> - alpha ||d||^2). Gradients must reach x_g through both frozen
    networks' inputs; with their inputs detached the noise form has no gradient at all.

    Deviation: Algorithm 1, line 13, subtracts alpha ||d||^2 from an expression that already holds
    it once (an effective alpha of 2, which diverges for an over-dispersed generator).

    Args:
        x_g: Generated features (B, C, H, W), with their graph.
        teacher: phi's answer for the noised x_g, with its graph.
        student: psi's answer for the noised x_g, with its graph.
        weight: gamma(t), (B,), detached.
        alpha: Weight of the squared term; 0.5 is unbiased for the Fisher divergence.
    """
    gap = teacher.x_0 - student.x_0
    inner = gap * (teacher.x_0 - x_g)
    return weight * _sample_mean(inner - alpha * gap**2)


def discriminator_logits(encoding: Tensor) -> Tensor:
    """Average an encoder's output over channels: logit map (B, 1, H', W') (section 3.3.2).

    Source: SiDA, training/sida_networks.py; D = sigmoid(logit).
    """
    return encoding.float().mean(dim=1, keepdim=True)


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Teach the discriminator: half the binary cross-entropy of real and fake maps, eq. 17, (B,).

    Deviation: eq. 17 is printed without its minus sign although it is minimised.
    """
    real = _sample_mean(F.softplus(-real_logits))
    fake = _sample_mean(F.softplus(fake_logits))
    return (real + fake) / 2


def generator_adversarial_loss(fake_logits: Tensor) -> Tensor:
    """Make generated features look real to the discriminator: -ln D(x_t), eq. 18, (B,).

    Deviation: eq. 18 prints the mean of D itself, which a minimising generator would lower.
    """
    return _sample_mean(F.softplus(-fake_logits))
