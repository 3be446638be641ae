"""Gaussian data, whose optimal denoiser and whose expectations are known exactly."""

import numpy as np
import torch
from torch import Tensor

from omiad.diffusion import Denoised, DenoiseFn, NoiseSchedule

SCHEDULE = NoiseSchedule(dtype=torch.float64)


def gaussian_denoiser(mean: float, std: float) -> DenoiseFn:
    """Return the optimal denoiser of data N(mean, std^2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        a, sigma = SCHEDULE.amplitudes(t)
        noise = sigma * (x_t - a * mean) / (a**2 * std**2 + sigma**2)
        return Denoised((x_t - sigma * noise) / a, noise)

    return denoise


def quadrature(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return two standard normals (N, 1, 1, 1) and probabilities (N,) of a Gauss-Hermite rule."""
    x, w = np.polynomial.hermite_e.hermegauss(count)
    z, noise = (torch.from_numpy(g.reshape(-1, 1, 1, 1)) for g in np.meshgrid(x, x))
    return z, noise, torch.from_numpy(np.outer(w, w).reshape(-1) / w.sum() ** 2)
