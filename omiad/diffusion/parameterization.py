"""The meaning of a network's raw output: v, epsilon or x_0.

Losses and samplers need only the pair (x_0_hat, noise_hat), so no other file knows the
parameterisation.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from omiad.diffusion.schedule import NoiseSchedule
from omiad.errors import InputError

Parameterization = Literal["v", "epsilon", "x0"]


class Denoised(NamedTuple):
    """Equivalent estimates of clean features and noise, each (B, C, H, W), float32 or better."""

    x_0: Tensor
    noise: Tensor


DenoiseFn = Callable[[Tensor, Tensor], Denoised]
"""Anything that maps noisy features (B, C, H, W) and steps (B,) to `Denoised`."""


class Denoiser(nn.Module):
    """A network with its schedule and parameterisation: (x_t, t) -> (x_0_hat, noise_hat).

    Deviation: the paper states eq. 10 for a network that predicts the noise. v is equivalent but
    avoids the amplification by sigma / alpha, which is 106 at the paper's t_init = 960.

    Args:
        network: Maps (x_t (B, C, H, W), t (B,)) to a raw output (B, C, H, W).
        schedule: Noise schedule.
        parameterization: Meaning of the raw output.
    """

    def __init__(
        self, network: nn.Module, schedule: NoiseSchedule, *, parameterization: Parameterization
    ) -> None:
        super().__init__()
        if parameterization not in get_args(Parameterization):
            raise InputError(
                f"parameterization must be one of {', '.join(get_args(Parameterization))}, but "
                f"got '{parameterization}'."
            )
        self.network = network
        self.schedule = schedule
        self.parameterization = parameterization

    def forward(self, x_t: Tensor, t: Tensor) -> Denoised:
        """Denoise x_t (B, C, H, W) at steps t (B,)."""
        return self.interpret(self.network(x_t, t), x_t, t)

    def interpret(self, output: Tensor, x_t: Tensor, t: Tensor) -> Denoised:
        """Convert a raw network output into (x_0_hat, noise_hat): x_t = alpha x_0 + sigma noise.

        v (Salimans and Ho 2022) is alpha noise - sigma x_0, hence x_0 = alpha x_t - sigma v and
        noise = sigma x_t + alpha v. From epsilon, x_0 = (x_t - sigma noise) / alpha (paper eq. 10).
        From x0, noise = (x_t - alpha x_0) / sigma.
        """
        # In half precision the epsilon form would be off by 0.2 rms at t_init = 960.
        output, x_t = output.to(self.schedule.alpha.dtype), x_t.to(self.schedule.alpha.dtype)
        alpha, sigma = self.schedule.amplitudes(t)
        if self.parameterization == "v":
            return Denoised(alpha * x_t - sigma * output, sigma * x_t + alpha * output)
        if self.parameterization == "epsilon":
            return Denoised((x_t - sigma * output) / alpha, output)
        return Denoised(output, (x_t - alpha * output) / sigma)
