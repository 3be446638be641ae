"""Controls of stage 2: what else the same steps of the generator could have been spent on.

    PYTHONPATH=tests/benchmarks omiad fit --config configs/omiad_folder.yaml --data.root real \
        --model distillation_controls.DdimRegression --model.teacher AMDM.ckpt

Each starts from the teacher, sees the same images and noise and differs from Algorithm 1 in the
generator's loss alone. `omiad test` needs the same PYTHONPATH; experiments.yaml lists them for
sweep_real.py, which needs none.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from omiad.diffusion import Denoiser
from omiad.diffusion.sampling import ddim_reconstruct
from omiad.modules import OmiADModule
from omiad.modules.distillation import Distillation
from omiad.modules.randomness import SampleDraws

NUM_STEPS = 10
"""Steps of DDIM that one step is regressed on, as many as the paper's teacher takes."""


class Regression(Distillation):
    """Squared distance of the generator's output from a target; nothing opposes it.

    Args:
        target: Features (B, C, h, w) that the real ones should be reconstructed to.
    """

    name = "idle opponent"

    def __init__(self, target: Callable[[Tensor], Tensor]) -> None:
        self.target = target
        self.opponent: nn.Module = nn.Linear(1, 1)

    def opponent_loss(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Tensor:
        """Return zero."""
        return 0 * self.opponent(x_g.new_zeros(1)).sum()

    def generator_loss(
        self, x_g: Tensor, x_0: Tensor, draws: SampleDraws, *, adversarial: bool
    ) -> Tensor:
        """Return the mean squared error over elements."""
        return (x_g - self.target(x_0)).square().mean()


class Anchored(Distillation):
    """Another way to distil, and beside its loss the reconstruction error.

    Args:
        way: The other way.
        weight: Weight of the mean squared error over elements.
    """

    def __init__(self, way: Distillation, weight: float) -> None:
        self.way = way
        self.weight = weight
        self.opponent = way.opponent
        self.name = way.name

    def opponent_loss(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Tensor:
        """Return the other way's."""
        return self.way.opponent_loss(x_g, x_0, draws)

    def generator_loss(
        self, x_g: Tensor, x_0: Tensor, draws: SampleDraws, *, adversarial: bool
    ) -> Tensor:
        """Return the other way's and the weighted error."""
        loss = self.way.generator_loss(x_g, x_0, draws, adversarial=adversarial)
        return loss + self.weight * (x_g - x_0).square().mean()


class InputRegression(OmiADModule):
    """Regress the one step on the features themselves: stage 1 goes on, at t_init, unmasked."""

    def _score_distillation(self) -> Distillation:
        way = Regression(lambda x_0: x_0)
        self.opponent = way.opponent
        return way


class DdimRegression(OmiADModule):
    """Regress the one step on what ten DDIM steps of the teacher make of the same noise."""

    def reconstruct(self, denoiser: Denoiser, x_0: Tensor, noise: Tensor) -> Tensor:
        """Reconstruct in one step, and keep the noise for the target."""
        self.noise = noise
        return super().reconstruct(denoiser, x_0, noise)

    def _score_distillation(self) -> Distillation:
        way = Regression(self._ddim)
        self.opponent = way.opponent
        return way

    @torch.no_grad()
    def _ddim(self, x_0: Tensor) -> Tensor:
        return ddim_reconstruct(
            self.teacher,
            self.teacher.schedule,
            x_0,
            self.noise,
            t_init=self.detector.t_init,
            num_steps=NUM_STEPS,
        )


class AnchoredAsd(OmiADModule):
    """Algorithm 1 with the reconstruction error beside it, both with a weight of one."""

    weight = 1.0

    def _score_distillation(self) -> Distillation:
        return Anchored(super()._score_distillation(), self.weight)


class StronglyAnchoredAsd(AnchoredAsd):
    """The same with ten times the reconstruction error."""

    weight = 10.0
