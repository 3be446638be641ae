"""A small memory of normal patches, each as its features and what the model leaves of them."""

from typing import Any

import torch
from torch import Tensor, nn

from omiad.errors import InputError

_MAX_DISTANCES = 2**25
"""Distances held at once: 128 MiB."""


class NormalMemory(nn.Module):
    """Distance of each patch to the most similar normal one.

    A patch is its features beside its weighted residual, each channel of the residual divided by
    the root mean square it has on normal images. So a patch is unusual when nothing normal looks
    like it, or when the model fails on it in a way in which it fails on nothing normal that looks
    alike. The nearest-neighbour distance is PatchCore's (Roth et al. 2022) without its re-weighting
    and coreset. Which category a patch came from is not kept.

    Args:
        num_channels: C of the features.
        residual_weight: Weight of the residual beside the features; 0 is a memory of features.

    Attributes:
        patches: What was kept (M, 2 C), none before `fit`.
        scale: Root mean square of the residual of each channel (C, 1, 1).
    """

    patches: Tensor
    scale: Tensor

    def __init__(self, num_channels: int, *, residual_weight: float) -> None:
        super().__init__()
        self.residual_weight = residual_weight
        self.register_buffer("patches", torch.empty(0, 2 * num_channels))
        self.register_buffer("scale", torch.ones(num_channels, 1, 1))

    def fit(self, x_0: Tensor, residual: Tensor) -> None:
        """Keep patches of normal images in place of those that are there.

        Args:
            x_0: Features (M, C).
            residual: Features less their reconstruction (M, C).
        """
        rms = residual.square().mean(0).sqrt().clamp(min=1e-6)
        self.scale.copy_(rms.view_as(self.scale))
        self.patches = self._patches(x_0[:, :, None, None], residual[:, :, None, None])

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
        if not len(self.patches):
            raise InputError(
                "The memory of normal patches is empty. Score with a checkpoint that `omiad fit` "
                "wrote, or call Detector.calibrate with features of normal images first."
            )
        height, width = x_0.shape[-2:]
        queries = self._patches(x_0, residual)
        rows = max(1, _MAX_DISTANCES // len(self.patches))
        # Half precision could not tell them apart.
        with torch.autocast(x_0.device.type, enabled=False):
            nearest = torch.cat([self._nearest(part) for part in torch.split(queries, rows)])
        return nearest.view(-1, 1, height, width)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The first checkpoints knew no memory.
        stored = state_dict.setdefault(prefix + "patches", self.patches[:0])
        state_dict.setdefault(prefix + "scale", torch.ones_like(self.scale))
        self.patches = self.patches.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _nearest(self, queries: Tensor) -> Tensor:
        # The length of the query shifts all its distances alike: the nearest is found without it.
        lengths = self.patches.square().sum(1)
        index = torch.addmm(lengths, queries, self.patches.T, alpha=-2).argmin(1)
        nearest: Tensor = torch.linalg.vector_norm(queries - self.patches[index], dim=1)
        return nearest

    def _patches(self, x_0: Tensor, residual: Tensor) -> Tensor:
        """Put features and residual (B, C, h, w) side by side: (B * h * w, 2 C)."""
        scaled = residual.float() * (self.residual_weight / self.scale)
        both = torch.cat([x_0.float(), scaled], dim=1)
        return both.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
