"""The losses against closed forms in float64, with an analytic teacher and student.

The data are N(m, s^2) and the generator is x_g = mu + tau z, so noised marginals are Gaussian and
the optimal scores are linear. Expectations over (z, noise) are Gauss-Hermite sums, which are exact
for these polynomials. The expected numbers are the gradients, by hand and by independent
quadrature, of
  L = sigma^2 [(V - v)^2 / (v V^2) + a^2 (mu - m)^2 / V^2],  V = a^2 s^2 + sigma^2,
  v = a^2 tau^2 + sigma^2.
"""

import math

import pytest
import torch
from gaussian import SCHEDULE, gaussian_denoiser, quadrature
from torch import Tensor

from omiad.diffusion import Denoised, DenoiseFn, Weighting
from omiad.diffusion.losses import (
    discriminator_logits,
    discriminator_loss,
    distillation_weight,
    generator_adversarial_loss,
    masked_denoising_loss,
    score_distillation_loss,
    student_loss,
    timestep_weight,
)
from omiad.errors import InputError

M, S = 1.5, 0.8
TEACHER = gaussian_denoiser(M, S)


def distillation_gradient(
    t: int,
    mu: float,
    tau: float,
    alpha: float,
    *,
    teacher: DenoiseFn = TEACHER,
    form: str = "ours",
    num_nodes: int = 80,
) -> tuple[float, float, float]:
    """Return value and gradient in (mu, tau) of the unit-weight distillation loss."""
    mean, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mu, tau))
    z, noise, probability = quadrature(num_nodes)
    steps = torch.full((len(z),), t)
    a, sigma = SCHEDULE.amplitudes(steps)
    x_g = mean + std * z
    x_t = SCHEDULE.add_noise(x_g, noise, steps)
    if "inputs detached" in form:
        x_t = x_t.detach()
    phi, psi = teacher(x_t, steps), gaussian_denoiser(mu, tau)(x_t, steps)
    gap = psi.noise - phi.noise
    if form.startswith("noise"):  # eq. 15 as printed
        per_sample = (gap * (noise - phi.noise) - alpha * gap**2).flatten()
    elif form == "line 13":  # Algorithm 1 as printed
        per_sample = ((-gap) * (psi.noise - noise) - alpha * gap**2).flatten()
    else:
        weight = ((a / sigma) ** 2).flatten()
        per_sample = score_distillation_loss(x_g, phi, psi, weight=weight, alpha=alpha)
    # Adding zero gives a graph to the forms that have none.
    loss = (probability * per_sample).sum() + 0 * (mean + std)
    d_mu, d_tau = torch.autograd.grad(loss, (mean, std))
    return loss.item(), d_mu.item(), d_tau.item()


# The last is at high noise. Alpha 0.5 is half of the gradient of the Fisher divergence.
@pytest.mark.parametrize(
    ("t", "tau", "alpha", "d_mu", "d_tau"),
    [
        (300, 0.5, 0.0, -0.304720375038, -0.0716300123677),
        (300, 0.5, 0.5, -0.781352779758 / 2, -0.15901994923 / 2),
        (300, 0.5, 1.0, -0.47663240472, -0.0873899368619),
        (300, 0.5, 1.2, -0.511014810657, -0.0905419217607),
        (300, 3.0, 0.5, -0.781352779758 / 2, 1.87087574393 / 2),
        (300, 3.0, 1.0, -0.0802910038465, 0.318948813768),
        (300, 3.0, 1.2, 0.0438631505665, 0.0723531904893),
        (960, 0.5, 1.0, -1.06952657051e-4, None),
    ],
)
def test_the_distillation_gradient_has_the_closed_form(
    t: int, tau: float, alpha: float, d_mu: float, d_tau: float | None
) -> None:
    value, got_mu, got_tau = distillation_gradient(t, 0.3, tau, alpha)
    assert got_mu == pytest.approx(d_mu, rel=1e-8)
    if d_tau is not None:
        assert got_tau == pytest.approx(d_tau, rel=1e-9)
    if (t, tau) == (300, 0.5):
        assert value == pytest.approx((1 - alpha) * 0.496747372678, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 1.2])
def test_the_noise_form_of_eq_15_equals_the_x0_form(alpha: float) -> None:
    ours = distillation_gradient(300, 0.3, 0.5, alpha)
    assert distillation_gradient(300, 0.3, 0.5, alpha, form="noise") == pytest.approx(ours)


# A form that the code must not take, and how its gradient differs from the right one.
@pytest.mark.parametrize(
    ("form", "tau", "d_mu", "d_tau"),
    [
        # Algorithm 1, line 13, as printed: both signs are wrong for an over-dispersed generator.
        ("line 13", 3.0, 0.540479768219, -0.914029302626),
        # Detached network inputs: the gradient through the scores is missing.
        ("inputs detached", 0.5, -0.554893127379, -0.0508694697281),
        # The noise form with detached inputs trains nothing.
        ("noise, inputs detached", 0.5, 0.0, 0.0),
    ],
)
def test_other_forms_would_have_another_gradient(
    form: str, tau: float, d_mu: float, d_tau: float
) -> None:
    _, *other = distillation_gradient(300, 0.3, tau, 1.0, form=form)
    assert other == pytest.approx([d_mu, d_tau], rel=1e-9)
    _, *ours = distillation_gradient(300, 0.3, tau, 1.0)
    assert other != pytest.approx(ours, rel=0.05)


def mixture_denoiser(x_t: Tensor, t: Tensor) -> Denoised:
    """Denoise data 0.3 N(-1, 0.4^2) + 0.7 N(1.2, 0.6^2) optimally."""
    a, sigma = SCHEDULE.amplitudes(t)
    log_p, noise = [], []
    for weight, mean, std in ((0.3, -1.0, 0.4), (0.7, 1.2, 0.6)):
        variance, gap = a**2 * std**2 + sigma**2, x_t - a * mean
        log_p.append(math.log(weight) - 0.5 * variance.log() - gap**2 / (2 * variance))
        noise.append(sigma * gap / variance)
    mixed = (torch.softmax(torch.stack(log_p), 0) * torch.stack(noise)).sum(0)
    return Denoised((x_t - sigma * mixed) / a, mixed)


@pytest.mark.parametrize(
    ("t", "mu", "tau", "half", "one"),
    [
        (300, 0.2, 0.5, (-0.1647854594, -0.3660485579), (-0.2243266315, -0.4164774683)),
        (300, 0.2, 1.5, (-0.1062338587, 0.3560727697), (-0.08906225425, 0.2428557127)),
        (500, -0.5, 1.0, (-0.1428298609, -0.008306302752), (-0.1467674114, -0.007992094633)),
    ],
)
def test_the_distillation_gradient_holds_for_a_nonlinear_teacher(
    t: int, mu: float, tau: float, half: tuple[float, float], one: tuple[float, float]
) -> None:
    for alpha, expected in ((0.5, half), (1.0, one)):
        _, d_mu, d_tau = distillation_gradient(t, mu, tau, alpha, teacher=mixture_denoiser)
        # 80 nodes differ by 1e-6 from the 150 of the reference.
        assert (2 * d_mu, 2 * d_tau) == pytest.approx(expected, rel=1e-5)


def test_the_distillation_gradient_is_zero_when_the_student_equals_the_teacher() -> None:
    _, d_mu, d_tau = distillation_gradient(300, M, S, 1.0)
    assert (d_mu, d_tau) == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize(("alpha", "start"), [(0.5, 3.0), (1.0, 0.5), (1.0, 3.0), (1.2, 3.0)])
def test_gradient_descent_finds_the_mean_and_the_spread_of_the_data(
    alpha: float, start: float
) -> None:
    mu, tau = 0.3, start
    for _ in range(150):
        gradients = [
            distillation_gradient(t, mu, tau, alpha, num_nodes=4)[1:]  # exact for quadratics
            for t in (50, 150, 300, 450)
        ]
        mu -= 0.5 * sum(g[0] for g in gradients) / 4
        tau -= 0.5 * sum(g[1] for g in gradients) / 4
    assert (mu, tau) == pytest.approx((M, S), abs=0.08)


def test_the_distillation_weight_is_the_detached_inverse_of_the_error() -> None:
    x_g = torch.zeros(2, 1, 2, 2, requires_grad=True)
    weight = distillation_weight(x_g, Denoised(x_g + 4, x_g))
    assert not weight.requires_grad
    torch.testing.assert_close(weight, torch.full((2,), 0.25))


@pytest.mark.parametrize("t", [1, 300, 960])
def test_the_masked_loss_equals_its_noise_form(t: int, generator: torch.Generator) -> None:
    # ||x_0_hat - x_0||^2 = (sigma/alpha)^2 ||noise_hat - (noise - alpha/sigma (x_0 - x_m))||^2.
    x_0, noise, guess = torch.randn(3, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    keep = (torch.rand(2, 1, 4, 4, generator=generator) > 0.3).double()
    steps = torch.full((2,), t)
    a, sigma = SCHEDULE.amplitudes(steps)

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        return Denoised((x_t - sigma * guess) / a, guess)

    ours = masked_denoising_loss(
        denoise, SCHEDULE, x_0, noise=noise, t=steps, keep=keep, weight=torch.ones(2)
    )
    target = noise - a / sigma * (x_0 - x_0 * keep)
    expected = (sigma / a).flatten() ** 2 * ((guess - target) ** 2).mean((1, 2, 3))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=0)


def test_the_student_loss_is_the_weighted_error_of_x0() -> None:
    x_g = torch.ones(2, 1, 1, 2)
    loss = student_loss(Denoised(x_g + 2, x_g), x_g, torch.tensor([1.0, 0.5]))
    assert loss.tolist() == [4.0, 2.0]


@pytest.mark.parametrize(
    ("weighting", "parameterization", "at_1", "at_960"),
    [
        ("one", "epsilon", 1.0, 1.0),
        ("alpha_bar", "v", 0.9999, 8.91263e-5),
        ("snr", "v", 9999.0, 8.9134e-5),
        ("min_snr_5", "v", 5.0, 8.9134e-5),
        ("auto", "v", 1.0, 1.0),
        ("auto", "x0", 1.0, 1.0),
        ("auto", "epsilon", 0.9999, 8.91263e-5),
    ],
)
def test_weightings_have_their_values(
    weighting: Weighting, parameterization: str, at_1: float, at_960: float
) -> None:
    t = torch.tensor([1, 960])
    weight = timestep_weight(weighting, SCHEDULE, t, parameterization=parameterization)
    assert weight.tolist() == pytest.approx([at_1, at_960], rel=1e-4)


def test_an_unknown_weighting_is_rejected() -> None:
    with pytest.raises(InputError, match=r"weighting .* got 'log'"):
        timestep_weight("log", SCHEDULE, torch.tensor([1]), parameterization="v")  # type: ignore[arg-type]


def test_adversarial_losses_are_the_binary_cross_entropies_worked_by_hand() -> None:
    real = torch.tensor([0.7, -0.2], dtype=torch.float64).view(1, 1, 1, 2)
    fake = torch.tensor([-0.4, 0.9], dtype=torch.float64).view(1, 1, 1, 2)
    assert discriminator_loss(real, fake).item() == pytest.approx(1.477747 / 2, abs=5e-7)
    assert generator_adversarial_loss(fake).item() == pytest.approx(0.627085, abs=5e-7)


def test_discriminator_logits_average_the_channels(generator: torch.Generator) -> None:
    encoding = torch.randn(2, 6, 4, 4, generator=generator)
    torch.testing.assert_close(discriminator_logits(encoding)[:, 0], encoding.sum(1) / 6)
