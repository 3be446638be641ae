"""A small memory of normal patches, each as its features and what the model leaves of them."""

from typing import Any

import torch
from torch import Tensor, nn

from omiad.errors import InputError

_MAX_DISTANCES = 2**25
"""Distances held at once: 128 MiB."""

_NUM_NEIGHBOURS = 5
"""Nearest normal patches whose usual distances count."""

_NUM_USUAL = 3
"""Nearest patches of other images that a normal patch's usual distance is the mean over."""


class NormalMemory(nn.Module):
    """How much farther each patch is from normal ones than normal ones like it are.

    A patch is its features beside its weighted residual, each channel of the residual divided by
    the root mean square it has on normal images. So a patch is unusual when nothing normal looks
    like it, or when the model fails on it in a way in which it fails on nothing normal that looks
    alike. Its distance to the nearest normal patch (PatchCore, Roth et al. 2022) is compared with
    the distances that the nearest normal patches have among themselves, as in the local outlier
    factor (Breunig et al. 2000), but as a difference: what varies by nature, as an edge or a crumb,
    is allowed to. Which category a patch came from is not kept.

    Args:
        num_channels: C of the features.
        residual_weight: Weight of the residual beside the features; 0 is a memory of features.

    Attributes:
        patches: What was kept (M, 2 C), none before `fit`.
        usual: Mean distance of each to the nearest ones of other images (M,).
        scale: Root mean square of the residual of each channel (C, 1, 1).
    """

    patches: Tensor
    usual: Tensor
    scale: Tensor

    def __init__(self, num_channels: int, *, residual_weight: float) -> None:
        super().__init__()
        self.residual_weight = residual_weight
        self.register_buffer("patches", torch.empty(0, 2 * num_channels))
        self.register_buffer("usual", torch.empty(0))
        self.register_buffer("scale", torch.ones(num_channels, 1, 1))
        self._images = torch.empty(0, dtype=torch.long)

    def fit(self, x_0: Tensor, residual: Tensor, images: Tensor) -> None:
        """Keep patches of normal images in place of those that are there.

        Args:
            x_0: Features (M, C).
            residual: Features less their reconstruction (M, C).
            images: Number of the image each comes from (M,).
        """
        rms = residual.square().mean(0).sqrt().clamp(min=1e-6)
        self.scale.copy_(rms.view_as(self.scale))
        self.patches = self._patches(x_0[:, :, None, None], residual[:, :, None, None])
        self._images = images
        self.usual = self._nearest(self.patches, _NUM_USUAL, leave_out=images)[0].mean(1)

    def forward(self, x_0: Tensor, residual: Tensor, images: Tensor | None = None) -> Tensor:
        """Return how much farther each patch is from the nearest kept one than is usual there.

        Args:
            x_0: Features (B, C, h, w).
            residual: Features less their reconstruction, like x_0.
            images: Right after `fit`, numbers of these images (B,), whose own patches do not count.

        Returns:
            Differences of Euclidean distances (B, 1, h, w), float32; below 0 for the most usual.

        Raises:
            InputError: If nothing was kept yet.
        """
        if not len(self.patches):
            raise InputError(
                "The memory of normal patches is empty. Score with a checkpoint that `omiad fit` "
                "wrote, or call Detector.calibrate with features of normal images first."
            )
        height, width = x_0.shape[-2:]
        leave_out = None if images is None else images.repeat_interleave(height * width)
        queries = self._patches(x_0, residual)
        distances, index = self._nearest(queries, _NUM_NEIGHBOURS, leave_out=leave_out)
        excess = distances[:, 0] - self.usual[index].mean(1)
        return excess.view(-1, 1, height, width)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The first checkpoints knew no memory.
        stored = state_dict.setdefault(prefix + "patches", self.patches[:0])
        state_dict.setdefault(prefix + "usual", self.usual[:0])
        state_dict.setdefault(prefix + "scale", torch.ones_like(self.scale))
        self.patches = self.patches.new_empty(stored.shape)
        self.usual = self.usual.new_empty(len(stored))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _nearest(
        self, queries: Tensor, count: int, *, leave_out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return distances to the nearest patches (N, count), ascending, and which they are."""
        count = min(count, len(self.patches))
        rows = max(1, _MAX_DISTANCES // len(self.patches))
        lengths = self.patches.square().sum(1)
        distances, indices = [], []
        with torch.autocast(queries.device.type, enabled=False):  # too coarse to tell them apart
            for start in range(0, len(queries), rows):
                part = queries[start : start + rows]
                # The length of a query shifts all its distances alike: left out here.
                order = torch.addmm(lengths, part, self.patches.T, alpha=-2)
                if leave_out is not None:
                    own = leave_out[start : start + rows, None] == self._images
                    order.masked_fill_(own, torch.inf)
                nearest = order.topk(count, largest=False).indices
                apart = part[:, None] - self.patches[nearest]
                distances.append(torch.linalg.vector_norm(apart, dim=2))
                indices.append(nearest)
        return torch.cat(distances), torch.cat(indices)

    def _patches(self, x_0: Tensor, residual: Tensor) -> Tensor:
        """Put features and residual (B, C, h, w) side by side: (B * h * w, 2 C)."""
        scaled = residual.float() * (self.residual_weight / self.scale)
        both = torch.cat([x_0.float(), scaled], dim=1)
        return both.permute(0, 2, 3, 1).flatten(0, 2).contiguous()
