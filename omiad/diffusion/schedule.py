"""The noise schedule of the forward process (paper eqs. 1, 2 and 9).

Steps count from 1 to T, as in the paper: t = 1 has the least noise and t = T the most. (Table 13
of the paper uses t = 1000 with T = 1000, which steps from 0 would not include.)
"""

import torch
from torch import Tensor, nn

from omiad.errors import InputError


class NoiseSchedule(nn.Module):
    """Linear beta schedule of DDPM, computed in float64.

    Args:
        num_timesteps: T, the number of forward steps.
        beta_start: Variance of the first step.
        beta_end: Variance of the last step.
        dtype: Data type of the stored amplitudes.

    Attributes:
        alpha: Signal amplitude sqrt(alpha_bar_t), shape (T,), index t - 1.
        sigma: Noise amplitude sqrt(1 - alpha_bar_t), shape (T,), index t - 1.
    """

    alpha: Tensor
    sigma: Tensor

    def __init__(
        self,
        num_timesteps: int = 1000,
        *,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if num_timesteps < 2:
            raise InputError(f"num_timesteps must be at least 2, but got {num_timesteps}.")
        if not 0 < beta_start <= beta_end < 1:
            raise InputError(
                f"The schedule needs 0 < beta_start <= beta_end < 1, but got beta_start "
                f"{beta_start} and beta_end {beta_end}."
            )
        self.num_timesteps = num_timesteps
        beta = torch.linspace(beta_start, beta_end, num_timesteps, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - beta, dim=0)
        # The constructor recomputes the amplitudes, so checkpoints do not need them.
        self.register_buffer("alpha", alpha_bar.sqrt().to(dtype), persistent=False)
        self.register_buffer("sigma", (1 - alpha_bar).sqrt().to(dtype), persistent=False)

    def amplitudes(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return (alpha_t, sigma_t), each (B, 1, 1, 1), for steps t (B,) in 1..T."""
        shape = (-1, 1, 1, 1)
        return self.alpha[t - 1].view(shape), self.sigma[t - 1].view(shape)

    def add_noise(self, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Sample x_t from q(x_t | x_0), eq. 2: alpha_t x_0 + sigma_t noise.

        The noise is standard normal and broadcastable to the clean features x_0 (B, C, H, W).
        """
        alpha, sigma = self.amplitudes(t)
        return alpha * x_0 + sigma * noise

    def check_step(self, t: int, name: str) -> None:
        """Reject a step outside 1..T, which the message calls `name`."""
        if not 1 <= t <= self.num_timesteps:
            raise InputError(f"{name} must lie in 1..{self.num_timesteps}, but got {t}.")

    def noise_to_signal(self, t: int, rms: float) -> float:
        """Return the noise-to-signal ratio (sigma_t / alpha_t) / rms of features with that rms."""
        return float(self.sigma[t - 1] / self.alpha[t - 1]) / rms

    def matching_step(self, ratio: float, rms: float) -> int:
        """Return the step whose noise-to-signal ratio is closest to `ratio` on a log scale."""
        log_ratio = (self.sigma / (self.alpha * rms)).log()
        return int((log_ratio - log_ratio.new_tensor(ratio).log()).abs().argmin()) + 1
