"""A memory of normal patches, each as its features and what the model leaves of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError

_MAX_DISTANCES = 2**25
"""Distances held at once: 128 MiB."""

_NUM_DIRECTIONS = 32
"""Random directions in which a coreset measures distances."""


def coreset(patches: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Choose patches so that none is far from its nearest chosen one.

    The next is always the one farthest from those chosen so far, which leaves no patch more than
    twice as far as the best choice of that many would (Gonzalez 1985; PatchCore, section 3.2).
    Distances are taken along random directions, as there.

    Args:
        patches: Normal patches (M, D).
        size: How many to choose.
        generator: Of the directions and of the first patch.

    Returns:
        Rows of the chosen patches (min(M, size),), the first ones first.
    """
    if size >= len(patches):
        return torch.arange(len(patches), device=patches.device)
    directions = torch.randn(patches.shape[1], _NUM_DIRECTIONS, generator=generator)
    with torch.autocast(patches.device.type, enabled=False):
        points = patches.float() @ directions.to(patches.device)
    lengths = points.square().sum(1)
    farthest = torch.randint(len(points), (), generator=generator).to(points.device)
    nearest = torch.full_like(lengths, torch.inf)
    chosen = torch.empty(size, dtype=torch.long, device=points.device)
    for i in range(size):
        chosen[i] = farthest
        distances = torch.addmv(lengths, points, points[farthest], alpha=-2)
        torch.minimum(nearest, distances + lengths[farthest], out=nearest)
        nearest[farthest] = -torch.inf  # rounding must not choose it again
        farthest = nearest.argmax()
    return chosen


class NormalMemory(nn.Module):
    """Distance of each patch to the most similar normal one.

    A patch is its features beside its weighted residual, each channel of the residual divided by
    the root mean square it has on normal images. So a patch is unusual when nothing normal looks
    like it, or when the model fails on it in a way in which it fails on nothing normal that looks
    alike. Of both, what each stage of the backbone says is divided by sqrt(1 + q), q the mean of
    its squares in units of `feature_norm`: strong patches differ by direction alone, as cosines
    have it, and weak ones, whose direction is noise, stay near one another. Division by the square
    root of its number of channels makes every stage weigh the same. The nearest-neighbour distance
    is PatchCore's (Roth et al. 2022) without its re-weighting. Which category a patch came from
    is not kept.

    Args:
        channels_per_stage: Channels of each stage, C in all.
        residual_weight: Weight of the residual beside the features; 0 is a memory of features.

    Attributes:
        patches: What was kept (M, 2 C), none before `fit`.
        rms: Root mean square of the residual of each channel (C,).
    """

    patches: Tensor
    rms: Tensor

    def __init__(self, channels_per_stage: Sequence[int], *, residual_weight: float) -> None:
        super().__init__()
        self.channels_per_stage = list(channels_per_stage)
        self.residual_weight = residual_weight
        num_channels = sum(channels_per_stage)
        self.register_buffer("patches", torch.empty(0, 2 * num_channels))
        self.register_buffer("rms", torch.ones(num_channels))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was kept yet."""
        return not len(self.patches)

    def fit(self, x_0: Tensor, residual: Tensor, rms: Tensor) -> None:
        """Keep patches of normal images in place of those that are there.

        Args:
            x_0: Features (M, C).
            residual: Features less their reconstruction (M, C).
            rms: Root mean square of the residual on normal images (C,).
        """
        self.rms.copy_(rms)
        self.patches = self.joined(x_0, residual, rms)

    def joined(self, x_0: Tensor, residual: Tensor, rms: Tensor) -> Tensor:
        """Return patches (M, 2 C), as they are compared, of features and residual (M, C)."""
        in_units_of_rms = residual.float() / rms.clamp(min=1e-6)
        both = [self._softened(x_0.float()), self._softened(in_units_of_rms)]
        return torch.cat([both[0], self.residual_weight * both[1]], dim=1)

    def _softened(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.channels_per_stage, dim=1)
        return torch.cat(
            [F.rms_norm(p, p.shape[1:], eps=1.0) / p.shape[1] ** 0.5 for p in parts], 1
        )

    def forward(self, x_0: Tensor, residual: Tensor) -> Tensor:
        """Return the Euclidean distance of each patch to the nearest kept one.

        Args:
            x_0: Features (B, C, h, w).
            residual: Features less their reconstruction, like x_0.

        Returns:
            Distances (B, 1, h, w), float32.

        Raises:
            InputError: If nothing was kept yet.
        """
        if self.is_empty:
            raise InputError(
                "The memory of normal patches is empty. Score with a checkpoint that `omiad fit` "
                "wrote, or call omiad.calibration.calibrate with features of normal images first."
            )
        height, width = x_0.shape[-2:]
        queries = self.joined(cells(x_0), cells(residual), self.rms)
        rows = max(1, _MAX_DISTANCES // len(self.patches))
        # Half precision could not tell them apart.
        with torch.autocast(x_0.device.type, enabled=False):
            nearest = torch.cat([self._nearest(part) for part in torch.split(queries, rows)])
        return nearest.view(-1, 1, height, width)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A buffer of another length than the stored one would not be loaded.
        self.patches = self.patches.new_empty(state_dict[prefix + "patches"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _nearest(self, queries: Tensor) -> Tensor:
        # The length of the query shifts all its distances alike: the nearest is found without it.
        lengths = self.patches.square().sum(1)
        index = torch.addmm(lengths, queries, self.patches.T, alpha=-2).argmin(1)
        nearest: Tensor = torch.linalg.vector_norm(queries - self.patches[index], dim=1)
        return nearest


def cells(x: Tensor) -> Tensor:
    """Return maps (B, C, h, w) as the vectors of their cells (B * h * w, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
