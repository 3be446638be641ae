"""Reconstruction of features by denoising: in one step or by DDIM."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor

from omiad.diffusion.parameterization import DenoiseFn
from omiad.diffusion.schedule import NoiseSchedule
from omiad.errors import InputError


def _steps(x: Tensor, t: int) -> Tensor:
    return torch.full_like(x[:, 0, 0, 0], t, dtype=torch.int64)


def ddim_timesteps(t_init: int, num_steps: int) -> list[int]:
    """Return num_steps + 1 integers from t_init down to 0, evenly spaced and rounded."""
    if not 1 <= num_steps <= t_init:
        raise InputError(f"num_steps must lie in 1..{t_init} (t_init), but got {num_steps}.")
    return [round(t_init * (num_steps - i) / num_steps) for i in range(num_steps + 1)]


def ddim_reconstruct(
    denoise: DenoiseFn,
    schedule: NoiseSchedule,
    x_0: Tensor,
    noise: Tensor,
    *,
    t_init: int,
    num_steps: int,
    eta: float = 0.0,
    step_noise: Iterable[Tensor] = (),
) -> Tensor:
    """Add noise up to t_init and denoise by DDIM (Song et al. 2020, eq. 12).

    One step is eq. 12 of the paper. With eta 1 and num_steps = t_init it is the paper's
    ancestral sampler (eqs. 3 and 4) without the noise that eq. 3 adds last, of variance beta_1.

    Args:
        denoise: The denoiser.
        schedule: Noise schedule; alpha_bar_0 is 1.
        x_0: Features (B, C, H, W).
        noise: Standard normal noise, broadcastable to x_0.
        t_init: Step to start from, in 1..T.
        num_steps: Number of evaluations, in 1..t_init.
        eta: Share of new noise in each step: 0 is deterministic, 1 has the variance of DDPM.
        step_noise: At least num_steps - 1 standard normals, broadcastable to x_0; used only if eta
            is positive.

    Raises:
        InputError: If num_steps is not in 1..t_init, or step_noise has too few entries.
    """
    timesteps = ddim_timesteps(t_init, num_steps)
    fresh_noise = iter(step_noise)
    x = schedule.add_noise(x_0, noise, _steps(x_0, t_init))
    for now, then in pairwise(timesteps[:-1]):
        estimate = denoise(x, _steps(x, now))
        alpha_now, sigma_now = schedule.alpha[now - 1], schedule.sigma[now - 1]
        alpha, sigma = schedule.alpha[then - 1], schedule.sigma[then - 1]
        # DDIM eq. 16; the bracket is 1 - alpha_bar_now / alpha_bar_then.
        fresh = eta * (sigma / sigma_now) * (1 - (alpha_now / alpha) ** 2).sqrt()
        x = alpha * estimate.x_0 + (sigma**2 - fresh**2).clamp(min=0).sqrt() * estimate.noise
        if eta > 0:
            if (z := next(fresh_noise, None)) is None:
                raise InputError("step_noise is too short. Give num_steps - 1 noises or more.")
            x = x + fresh * z
    return denoise(x, _steps(x, timesteps[-2])).x_0
