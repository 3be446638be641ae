"""Expensive diagnostics of stage 2: gradient norms, errors by noise level, distances moved."""

import logging
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from omiad.errors import InputError
from omiad.names import one_line
from omiad.schema import conform

if TYPE_CHECKING:
    from omiad.modules.omiad import OmiADModule

logger = logging.getLogger(__name__)

MOST_TIMESTEPS = 1_000_000


class DistillationDiagnostics(Callback):
    """Log what stage 2 does beside its losses, in the batches that Lightning logs.

    `train/*_gradient_*` are norms of the gradients of single loss terms. `train/student_error_*`
    and `train/score_gap_*` are means over bands of timesteps. `train/generator_distance` and
    `train/generator_shift_rms` say how far weights and output of the generator have moved away from
    the teacher.
    """

    def __init__(self) -> None:
        self._bands: dict[str, TimestepBands] = {}
        self._gradients: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what was gathered since the last row of metrics.csv, for a checkpoint."""
        return {name: (bands.last, bands.sums) for name, bands in self._bands.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on gathering where a run was interrupted.

        Raises:
            InputError: If a checkpoint holds something else than `state_dict` returns.
        """
        where = "The checkpoint: callbacks.DistillationDiagnostics"
        conform(state_dict, dict[str, tuple[int, Tensor]], where=where)
        for name, (last, sums) in state_dict.items():
            bands = TimestepBands(last)
            is_like = sums.shape == bands.sums.shape and sums.dtype == bands.sums.dtype
            if not (is_like and sums.isfinite().all() and 1 <= last <= MOST_TIMESTEPS):
                raise InputError(
                    f"{where}.{one_line(name[:80])} holds no sums over bands of timesteps. The "
                    f"file is damaged; give another checkpoint."
                )
            bands.sums = sums
            self._bands[name] = bands

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Look at the terms of a loss while their graph exists."""
        module = cast("OmiADModule", pl_module)
        for name, (t, values) in module.losses.by_timestep.items():
            self._bands.setdefault(name, TimestepBands(module.t_max)).update(t, values)
        if _is_logged(trainer):
            terms = module.losses.gradients.items()
            self._gradients |= {name: gradient_norm(*term) for name, term in terms}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Log what was gathered, and the distance between generator and teacher."""
        # All in this hook: in the first batch of an epoch Lightning forgets what one hook has
        # logged when another hook logs in between.
        if not _is_logged(trainer):
            return
        module = cast("OmiADModule", pl_module)
        x_0, noise, x_g = module.generated
        with trainer.precision_plugin.forward_context():
            of_teacher = module.reconstruct(module.teacher, x_0, noise)
        figures: dict[str, Tensor | float] = {
            **self._gradients,
            "generator_distance": parameter_distance(module.generator, module.teacher),
            "generator_shift_rms": (x_g - of_teacher).square().mean().sqrt(),
            "generator_steps": float(module.num_generator_steps),
            "nonfinite_gradients": float(module.num_nonfinite_gradients),
        }
        for name, bands in self._bands.items():
            figures |= {f"{name}_{band}": mean for band, mean in bands.means().items()}
        module.log_dict({f"train/{name}": value for name, value in figures.items()})
        self._gradients = {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how far the generator moved; at a distance of 0 distillation changed nothing."""
        module = cast("OmiADModule", pl_module)
        logger.info(
            "generator: %d steps, relative distance from the teacher %.3g",
            module.num_generator_steps,
            parameter_distance(module.generator, module.teacher),
        )


class TimestepBands:
    """Means of a value over equal bands of the timesteps 1..last, gathered over many batches."""

    def __init__(self, last: int, num_bands: int = 4) -> None:
        self.last = last
        self.sums = torch.zeros(2, num_bands)
        edges = [round(last * i / num_bands) for i in range(num_bands + 1)]
        self.names = [f"t{low + 1}_{high}" for low, high in pairwise(edges)]
        self._edges = torch.tensor(edges[1:-1])

    @torch.no_grad()
    def update(self, t: Tensor, values: Tensor) -> None:
        """Add one value (B,) for each step t (B,) in 1..last; nothing leaves the device."""
        band = torch.bucketize(t, self._edges.to(t.device))
        added = torch.stack([values.float(), torch.ones_like(values, dtype=torch.float32)])
        self.sums = self.sums.to(t.device).index_add(1, band, added)

    def means(self) -> dict[str, float]:
        """Return the mean of each band that had a value, by name, and start again."""
        total, count = self.sums.tolist()
        self.sums = torch.zeros_like(self.sums)
        return {n: s / c for n, s, c in zip(self.names, total, count, strict=True) if c}


def gradient_norm(loss: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """Return the norm of d loss / d inputs over all inputs; graph and `.grad` stay untouched."""
    gradients = torch.autograd.grad(loss, list(inputs), retain_graph=True)
    norm: Tensor = torch.stack(torch._foreach_norm(list(gradients))).norm()
    return norm


def parameter_distance(a: nn.Module, b: nn.Module) -> float:
    """Return ||a - b|| / ||b|| over all parameters: how far a has moved away from b."""
    norms = torch._foreach_norm([p.detach() for p in b.parameters()])
    gaps = torch._foreach_norm(
        [p.detach() - q.detach() for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    )
    return float(torch.stack(gaps).norm() / torch.stack(norms).norm())


def _is_logged(trainer: Trainer) -> bool:
    """Return whether Lightning logs the current batch."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return (trainer.fit_loop.total_batch_idx + 1) % every == 0
