"""How well a training step of stage 1 uses its device, and what drawing its noise costs."""

import copy
from typing import TypedDict

import torch
from torch.utils.flop_counter import FlopCounterMode

from omiad import Detector
from omiad.benchmark.timing import repeated, summary
from omiad.diffusion.losses import masked_denoising_loss
from omiad.diffusion.masking import Masking
from omiad.modules.randomness import SampleDraws

BATCH_SIZE = 16


class TrainingSpeed(TypedDict):
    """Speed of a training step of `BATCH_SIZE` samples.

    Attributes:
        step_ms: Median of a step: forward, backward and AdamW, without drawing the noise.
        noise_ms: Median of drawing noise, steps and masks, one generator for each sample.
        utilisation: Multiplications and additions of the step in a second, as a share of those of
            a product of large matrices on the same device in the same precision.
    """

    step_ms: float
    noise_ms: float
    utilisation: float


def training_speed(detector: Detector, device: torch.device, *, seconds: float) -> TrainingSpeed:
    """Measure a training step of the network of a detector."""
    denoiser = copy.deepcopy(detector.denoiser).to(device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4)
    side, channels = detector.extractor.feature_size, detector.extractor.num_channels
    shape, masking, schedule = (channels, side, side), Masking(), denoiser.schedule
    x_0 = torch.randn(BATCH_SIZE, *shape, device=device)
    index = torch.arange(BATCH_SIZE)

    def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        draws = SampleDraws(seed=0, epoch=0, index=index, device=device)
        t, noise = draws.steps(schedule.num_timesteps), draws.normal(shape)
        uniform = draws.uniform(masking.uniform_shape(shape))
        return t, noise, masking.keep(uniform, t, schedule.num_timesteps)

    t, noise, keep = draw()

    @torch.enable_grad()
    def step() -> None:
        loss = masked_denoising_loss(
            denoiser,
            schedule,
            x_0,
            noise=noise,
            t=t,
            keep=keep,
            weight=torch.ones_like(x_0[:, 0, 0, 0]),
        )
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    step_ms = summary(repeated(step, device, seconds=seconds))["median_ms"]
    noise_ms = summary(repeated(draw, device, seconds=1))["median_ms"]
    rate = counter.get_total_flops() / step_ms
    return {
        "step_ms": step_ms,
        "noise_ms": noise_ms,
        "utilisation": rate / peak_rate(device, x_0.dtype),
    }


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations in a millisecond of a product of large matrices."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / summary(repeated(lambda: a @ a, device, seconds=1))["median_ms"]
