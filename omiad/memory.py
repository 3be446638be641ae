"""A small memory of normal patches, each as its features and what the model leaves of them."""

from typing import Any

import torch
from torch import Tensor, nn

_MAX_DISTANCES = 2**25
"""Distances held at once: 128 MiB."""


class NormalMemory(nn.Module):
    """Distance of each patch to the most similar normal one.

    A patch is its features beside its weighted residual, each channel of the residual divided by
    the root mean square it has on normal images. So a patch is unusual when nothing normal looks
    like it, or when the model fails on it in a way in which it fails on nothing normal that looks
    alike. The nearest-neighbour distance is PatchCore's (Roth et al. 2022) without its re-weighting
    and coreset; the same number of patches is drawn from every category, and which category a patch
    came from is not kept.

    Args:
        num_channels: C of the features.
        size: Patches kept of each category.
        residual_weight: Weight of the residual beside the features; 0 is a memory of features.

    Attributes:
        patches: What was kept (M, 2 C), none before `fit`.
        scale: Root mean square of the residual of each channel (C, 1, 1).
    """

    patches: Tensor
    scale: Tensor

    def __init__(self, num_channels: int, *, size: int, residual_weight: float) -> None:
        super().__init__()
        self.size = size
        self.residual_weight = residual_weight
        self.register_buffer("patches", torch.empty(0, 2 * num_channels))
        self.register_buffer("scale", torch.ones(num_channels, 1, 1))

    @property
    def is_empty(self) -> bool:
        """Whether `fit` is still to come."""
        return len(self.patches) == 0

    def fit(self, x_0: Tensor, residual: Tensor, category: Tensor, *, seed: int) -> None:
        """Keep patches of normal images.

        Args:
            x_0: Features (N, C, h, w).
            residual: Features less their reconstruction, like x_0.
            category: Number of each image's category (N,).
            seed: Which patches.
        """
        self.scale.copy_(residual.square().mean((0, 2, 3)).sqrt().clamp(min=1e-6).view_as(self.scale))
        generator = torch.Generator().manual_seed(seed)
        kept = []
        for number in category.unique().tolist():
            mine = (category == number).nonzero().flatten()
            patches = self._patches(x_0[mine], residual[mine]).flatten(0, 1)
            drawn = torch.randperm(len(patches), generator=generator)[: self.size]
            kept.append(patches[drawn.to(patches.device)])
        self.patches = torch.cat(kept)

    def forward(self, x_0: Tensor, residual: Tensor) -> Tensor:
        """Return the Euclidean distance of each patch to the nearest kept one.

        Args:
            x_0: Features (B, C, h, w).
            residual: Features less their reconstruction, like x_0.

        Returns:
            Distances (B, 1, h, w), float32.
        """
        height, width = x_0.shape[-2:]
        queries = self._patches(x_0, residual).flatten(0, 1)
        rows = max(1, _MAX_DISTANCES // len(self.patches))
        with torch.autocast(x_0.device.type, enabled=False):  # half precision cannot tell them apart
            nearest = torch.cat([self._nearest(part) for part in queries.split(rows)])
        return nearest.view(-1, 1, height, width)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        stored = state_dict.get(prefix + "patches")
        if stored is not None:  # as many as there were
            self.patches = self.patches.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _nearest(self, queries: Tensor) -> Tensor:
        # The length of the query shifts all its distances alike: the nearest is found without it.
        lengths = self.patches.square().sum(1)
        index = torch.addmm(lengths, queries, self.patches.T, alpha=-2).argmin(1)
        return (queries - self.patches[index]).norm(dim=1)

    def _patches(self, x_0: Tensor, residual: Tensor) -> Tensor:
        scaled = residual.float() * (self.residual_weight / self.scale)
        return torch.cat([x_0.float(), scaled], dim=1).flatten(2).mT.contiguous()
