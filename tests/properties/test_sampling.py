"""Theorems about the samplers, with denoisers that are exact."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from omiad.diffusion import Denoised, NoiseSchedule
from omiad.diffusion.sampling import (
    ddim_reconstruct,
    ddim_timesteps,
    ddpm_reconstruct,
    one_step_reconstruct,
)
from omiad.errors import InputError

SCHEDULE = NoiseSchedule(dtype=torch.float64)


def gaussian_denoiser(std: float, mean: float = 0.0):  # type: ignore[no-untyped-def]
    """Return the optimal denoiser of data N(mean, std^2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        a, sigma = SCHEDULE.amplitudes(t)
        noise = sigma * (x_t - a * mean) / (a**2 * std**2 + sigma**2)
        return Denoised((x_t - sigma * noise) / a, noise)

    return denoise


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_ddim_returns_x0_when_the_denoiser_is_exact(
    num_steps: int, generator: torch.Generator
) -> None:
    x_0, noise = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        a, sigma = SCHEDULE.amplitudes(t)
        return Denoised(x_0, (x_t - a * x_0) / sigma)

    out = ddim_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=960, num_steps=num_steps)
    torch.testing.assert_close(out, x_0, rtol=1e-9, atol=1e-9)


def test_one_ddim_step_is_the_one_step_reconstruction(generator: torch.Generator) -> None:
    x_0, noise = torch.randn(2, 3, 4, 4, 4, generator=generator, dtype=torch.float64)
    denoise = gaussian_denoiser(0.7)
    one = one_step_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=500)
    ddim = ddim_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=500, num_steps=1)
    assert torch.equal(one, ddim)


def test_deterministic_ddim_converges_to_the_flow_with_first_order() -> None:
    # For N(0, s^2) the probability flow scales x by s / sqrt(alpha_bar s^2 + sigma^2).
    std, t_init = 0.6, 900
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    start = SCHEDULE.add_noise(x, torch.zeros_like(x), torch.tensor([t_init])).item()
    alpha, sigma = SCHEDULE.alpha[t_init - 1].item(), SCHEDULE.sigma[t_init - 1].item()
    exact = start * std / math.sqrt(alpha**2 * std**2 + sigma**2)
    errors = []
    steps = [9, 18, 36, 72]
    for num_steps in steps:
        out = ddim_reconstruct(
            gaussian_denoiser(std),
            SCHEDULE,
            x,
            torch.zeros_like(x),
            t_init=t_init,
            num_steps=num_steps,
        )
        errors.append(abs(out.item() - exact))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.7 < slope < 1.5 for slope in slopes), slopes


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_stochastic_ddim_keeps_the_datas_spread(eta: float, generator: torch.Generator) -> None:
    mean, std, count = 0.8, 0.6, 20_000
    shape = (count, 1, 1, 1)
    x_0, noise = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    out = ddim_reconstruct(
        gaussian_denoiser(std, mean),
        SCHEDULE,
        mean + std * x_0,
        noise,
        t_init=900,
        num_steps=450,
        eta=eta,
        step_noise=torch.randn(449, *shape, generator=generator, dtype=torch.float64),
    )
    # Standard error of the deviation: 0.6 / sqrt(40,000) = 0.003; the rest is discretisation.
    assert out.std().item() == pytest.approx(std, abs=0.02)
    assert out.mean().item() == pytest.approx(mean, abs=0.02)


def test_the_ancestral_sampler_reproduces_the_datas_mean_and_spread(
    generator: torch.Generator,
) -> None:
    mean, std, count = 0.8, 0.6, 20_000
    x_0, noise = torch.randn(2, count, 1, 1, 1, generator=generator, dtype=torch.float64)
    fresh = (torch.randn(x_0.shape, generator=generator, dtype=torch.float64) for _ in range(1000))
    out = ddpm_reconstruct(
        gaussian_denoiser(std, mean),
        SCHEDULE,
        mean + std * x_0,
        noise,
        t_init=1000,
        step_noise=fresh,
    )
    # Standard error of the deviation: 0.003.
    assert out.std().item() == pytest.approx(std, abs=0.015)
    assert out.mean().item() == pytest.approx(mean, abs=0.015)


def test_the_ancestral_sampler_is_eqs_3_and_4_to_the_letter(generator: torch.Generator) -> None:
    # beta = (0.1, 0.2): alpha_bar = (0.9, 0.72); eq. 4 in the noise that the network answers.
    schedule = NoiseSchedule(2, beta_start=0.1, beta_end=0.2, dtype=torch.float64)
    x_0, noise, hat_2, hat_1, z_2, z_1 = torch.randn(
        6, 1, 1, 2, 2, generator=generator, dtype=torch.float64
    )

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        a, sigma = schedule.amplitudes(t)
        hat = hat_2 if t.item() == 2 else hat_1
        return Denoised((x_t - sigma * hat) / a, hat)

    ours = ddpm_reconstruct(denoise, schedule, x_0, noise, t_init=2, step_noise=[z_2, z_1])
    x_2 = math.sqrt(0.72) * x_0 + math.sqrt(0.28) * noise
    x_1 = (x_2 - 0.2 / math.sqrt(0.28) * hat_2) / math.sqrt(0.8) + math.sqrt(0.1 / 0.28 * 0.2) * z_2
    expected = (x_1 - 0.1 / math.sqrt(0.1) * hat_1) / math.sqrt(0.9) + math.sqrt(0.1) * z_1
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_ddim_with_full_noise_and_every_step_is_the_ancestral_sampler(
    generator: torch.Generator,
) -> None:
    x_0, noise = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    fresh = torch.randn(40, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    denoise = gaussian_denoiser(0.6)
    ddim = ddim_reconstruct(
        denoise, SCHEDULE, x_0, noise, t_init=40, num_steps=40, eta=1.0, step_noise=fresh
    )
    ddpm = ddpm_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=40, step_noise=fresh)
    # They differ in the last step's noise alone, of variance beta_1 = 1e-4.
    torch.testing.assert_close(ddpm - ddim, 0.01 * fresh[-1], rtol=1e-9, atol=1e-9)


def test_a_batch_split_does_not_change_the_reconstruction(generator: torch.Generator) -> None:
    x_0 = torch.randn(4, 2, 3, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, 2, 3, 3, generator=generator, dtype=torch.float64)
    denoise = gaussian_denoiser(0.7)
    whole = ddim_reconstruct(denoise, SCHEDULE, x_0, noise, t_init=400, num_steps=4)
    parts = [
        ddim_reconstruct(denoise, SCHEDULE, x, noise, t_init=400, num_steps=4) for x in x_0.split(3)
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_steps_run_from_the_start_to_zero() -> None:
    assert ddim_timesteps(960, 4) == [960, 720, 480, 240, 0]
    with pytest.raises(InputError, match=r"num_steps must lie in 1..5 \(t_init\), but got 6"):
        ddim_timesteps(5, 6)


def test_a_stochastic_sampler_without_enough_noise_is_refused() -> None:
    x = torch.zeros(1, 1, 1, 1)
    with pytest.raises(InputError, match="needs step_noise for every step, but it ran out"):
        ddim_reconstruct(gaussian_denoiser(1.0), SCHEDULE, x, x, t_init=10, num_steps=2, eta=0.5)
    with pytest.raises(InputError, match="needs step_noise for every step, but it ran out"):
        ddpm_reconstruct(gaussian_denoiser(1.0), SCHEDULE, x, x, t_init=3, step_noise=[x, x])
