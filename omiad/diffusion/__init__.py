"""The mathematics of the method: pure functions of tensors, in the order of the paper."""

from omiad.diffusion.losses import Weighting
from omiad.diffusion.masking import Masking
from omiad.diffusion.parameterization import Denoised, DenoiseFn, Denoiser, Parameterization
from omiad.diffusion.schedule import NoiseSchedule

__all__ = [
    "DenoiseFn",
    "Denoised",
    "Denoiser",
    "Masking",
    "NoiseSchedule",
    "Parameterization",
    "Weighting",
]
