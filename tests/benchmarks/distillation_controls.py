"""Controls of stage 2: what else the same steps of the generator could have been spent on.

    PYTHONPATH=tests/benchmarks omiad fit --config omiad_folder --data.root real \
        --model distillation_controls.DdimRegression --model.teacher AMDM.ckpt

Each control starts from the teacher, sees the same images and noise as Algorithm 1, and differs
from it in the loss of the generator alone. experiments.yaml lists the controls for sweep_real.py.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from omiad.diffusion import Denoiser
from omiad.diffusion.sampling import ddim_reconstruct
from omiad.modules import OmiADModule
from omiad.modules.omiad import Losses
from omiad.modules.randomness import SampleDraws


class Regression(OmiADModule):
    """Train the generator alone, on the squared distance from a target."""

    def build_critic(self) -> None:
        self.idle = nn.Linear(1, 1)  # has no effect

    @property
    def critic(self) -> nn.Module:
        return self.idle

    @abstractmethod
    def target(self, x_0: Tensor) -> Tensor:
        """Return the features (B, C, h, w) that x_0 should be reconstructed to."""

    def critic_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        return Losses(0 * self.idle(x_g.new_zeros(1)).sum(), {}, {}, {})

    def generator_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        error = (x_g - self.target(x_0)).square().mean()
        return Losses(error, {"distillation_loss": error}, {}, {})


class InputRegression(Regression):
    """Regress one step on the features themselves: stage 1 continues, at t_init, unmasked."""

    def target(self, x_0: Tensor) -> Tensor:
        return x_0


class DdimRegression(Regression):
    """Regress one step on what the teacher makes of the same noise in ten DDIM steps."""

    def reconstruct(self, denoiser: Denoiser, x_0: Tensor, noise: Tensor) -> Tensor:
        self.noise = noise  # for the target
        return super().reconstruct(denoiser, x_0, noise)

    @torch.no_grad()
    def target(self, x_0: Tensor) -> Tensor:
        schedule, t_init = self.teacher.schedule, self.detector.t_init
        return ddim_reconstruct(
            self.teacher, schedule, x_0, self.noise, t_init=t_init, num_steps=10
        )


class AnchoredAsd(OmiADModule):
    """Algorithm 1 plus the reconstruction error, both with a weight of one."""

    weight = 1.0

    def generator_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        losses = super().generator_losses(x_g, x_0, draws)
        error = (x_g - x_0).square().mean()
        return losses._replace(total=losses.total + self.weight * error)


class StronglyAnchoredAsd(AnchoredAsd):
    """The same with ten times the reconstruction error."""

    weight = 10.0
