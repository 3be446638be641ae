"""Theorems about the samplers, with exact denoisers."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import SCHEDULE, gaussian_denoiser
from torch import Tensor

from omiad.diffusion import Denoised
from omiad.diffusion.sampling import ddim_reconstruct, ddim_timesteps
from omiad.errors import InputError


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_ddim_returns_x0_when_the_denoiser_is_exact(
    num_steps: int, generator: torch.Generator
) -> None:
    x_0, noise = normal(generator, 2, 3, 4, 4, 4)

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        a, sigma = SCHEDULE.amplitudes(t)
        return Denoised(x_0, (x_t - a * x_0) / sigma)

    out = ddim_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=960, num_steps=num_steps)
    torch.testing.assert_close(out, x_0, rtol=1e-9, atol=1e-9)


def test_one_ddim_step_is_the_one_step_reconstruction(generator: torch.Generator) -> None:
    x_0, noise = normal(generator, 2, 3, 4, 4, 4)
    denoise = gaussian_denoiser(0.0, 0.7)
    t = torch.full((len(x_0),), 500)
    one = denoise(SCHEDULE.add_noise(x_0, noise, t), t).x_0
    ddim = ddim_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=500, num_steps=1)
    assert torch.equal(one, ddim)


def test_deterministic_ddim_converges_to_the_flow_with_first_order() -> None:
    # For N(0, s^2) the probability flow scales x by s / sqrt(alpha_bar s^2 + sigma^2).
    std, t_init = 0.6, 900
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha[t_init - 1].item(), SCHEDULE.sigma[t_init - 1].item()
    exact = alpha * std / math.sqrt(alpha**2 * std**2 + sigma**2)
    denoise = gaussian_denoiser(0.0, std)
    errors = []
    for num_steps in (9, 18, 36, 72):
        out = ddim_reconstruct(denoise, SCHEDULE, x, 0 * x, t_init=t_init, num_steps=num_steps)
        errors.append(abs(out.item() - exact))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.7 < slope < 1.5 for slope in slopes), slopes


def test_stochastic_ddim_keeps_the_spread_of_the_data(generator: torch.Generator) -> None:
    mean, std, count = 0.8, 0.6, 20_000
    x_0, noise = normal(generator, 2, count, 1, 1, 1)
    out = ddim_reconstruct(
        gaussian_denoiser(mean, std),
        SCHEDULE,
        mean + std * x_0,
        noise,
        t_init=900,
        num_steps=450,
        eta=0.5,
        step_noise=(normal(generator, count, 1, 1, 1) for _ in range(449)),
    )
    # The standard error of the deviation is 0.6 / sqrt(40,000) = 0.003; the rest is discretisation.
    assert out.std().item() == pytest.approx(std, abs=0.02)
    assert out.mean().item() == pytest.approx(mean, abs=0.02)


def test_ddim_with_full_noise_and_every_step_is_the_ancestral_sampler(
    generator: torch.Generator,
) -> None:
    t_init = 40
    x_0, noise = normal(generator, 2, 3, 2, 4, 4)
    z = normal(generator, t_init, 3, 2, 4, 4)
    denoise = gaussian_denoiser(0.0, 0.6)
    ddim = ddim_reconstruct(
        denoise, SCHEDULE, x_0, noise, t_init=t_init, num_steps=t_init, eta=1.0, step_noise=z
    )
    # Eqs. 3 and 4 from betas alone: the mean in terms of the predicted noise, and the posterior
    # variance. Eq. 3 as printed adds noise at t = 1 too, which DDIM does not.
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - beta, 0)
    x = bar[t_init - 1].sqrt() * x_0 + (1 - bar[t_init - 1]).sqrt() * noise
    for i in reversed(range(t_init)):
        predicted = denoise(x, torch.full((3,), i + 1)).noise
        x = (x - beta[i] / (1 - bar[i]).sqrt() * predicted) / (1 - beta[i]).sqrt()
        if i:
            x = x + ((1 - bar[i - 1]) / (1 - bar[i]) * beta[i]).sqrt() * z[t_init - 1 - i]
    torch.testing.assert_close(ddim, x, rtol=1e-9, atol=1e-9)


def test_the_steps_run_from_t_init_to_zero() -> None:
    assert ddim_timesteps(960, 4) == [960, 720, 480, 240, 0]
    with pytest.raises(InputError, match=r"num_steps .* got 6"):
        ddim_timesteps(5, 6)


def test_a_stochastic_sampler_without_enough_noise_is_rejected() -> None:
    x, denoise = torch.zeros(1, 1, 1, 1), gaussian_denoiser(0.0, 1.0)
    with pytest.raises(InputError, match="step_noise"):
        ddim_reconstruct(denoise, SCHEDULE, x, x, t_init=10, num_steps=2, eta=0.5)
