"""The mathematics of the method: pure functions of tensors, in the order of the paper."""

from omiad.diffusion.adversarial_diffusion import AdversarialDiffusion as AdversarialDiffusion
from omiad.diffusion.losses import Target as Target
from omiad.diffusion.losses import Weighting as Weighting
from omiad.diffusion.masking import Masking as Masking
from omiad.diffusion.parameterization import Denoised as Denoised
from omiad.diffusion.parameterization import DenoiseFn as DenoiseFn
from omiad.diffusion.parameterization import Denoiser as Denoiser
from omiad.diffusion.parameterization import Parameterization as Parameterization
from omiad.diffusion.schedule import NoiseSchedule as NoiseSchedule
