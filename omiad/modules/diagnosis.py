"""What stage 2 logs beside its losses: gradients, errors by noise level, how far theta moved."""

from collections.abc import Sequence

import torch
from lightning import LightningModule
from torch import Tensor, nn

from omiad.modules.bands import TimestepBands
from omiad.modules.gradients import gradient_norm, parameter_distance


class Diagnosis:
    """Figures that are dear to compute, logged only in batches that Lightning writes down.

    Args:
        module: Whose log they go to.
        t_max: Noisiest step of the bands.
    """

    def __init__(self, module: LightningModule, t_max: int) -> None:
        self._module = module
        self._t_max = t_max
        self._bands: dict[str, TimestepBands] = {}

    @property
    def is_due(self) -> bool:
        """Whether Lightning writes what this batch logs."""
        trainer = self._module.trainer
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (trainer.fit_loop.total_batch_idx + 1) % every == 0

    def log(self, name: str, value: Tensor | float, *, prog_bar: bool = False) -> None:
        """Log a figure of this batch as train/<name>."""
        self._module.log(f"train/{name}", value, prog_bar=prog_bar)

    def gradient(self, name: str, loss: Tensor, inputs: Sequence[Tensor]) -> None:
        """Log the norm of d loss / d inputs."""
        if self.is_due:
            self.log(name, gradient_norm(loss, inputs))

    def by_step(self, name: str, t: Tensor, values: Tensor) -> None:
        """Gather a value (B,) of each step t (B,), to be logged as means over bands of steps."""
        self._bands.setdefault(name, TimestepBands(self._t_max)).update(t, values)

    @torch.no_grad()
    def state(
        self, generator: nn.Module, teacher: nn.Module, x_g: Tensor, of_teacher: Tensor
    ) -> None:
        """Log the bands, and how far weights and output of the generator are from the teacher's.

        Args:
            generator: The generator.
            teacher: What it started from.
            x_g: Its output (B, C, h, w).
            of_teacher: The teacher's for the same input and noise.
        """
        for name, bands in self._bands.items():
            means = {f"train/{name}_{band}": mean for band, mean in bands.means().items()}
            self._module.log_dict(means)
        self.log("generator_distance", parameter_distance(generator, teacher))
        self.log("generator_shift_rms", (x_g - of_teacher).square().mean().sqrt())
