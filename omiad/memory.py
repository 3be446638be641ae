"""Memories of normal patches: the features and the residual of each."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from omiad.buffers import FreeRows
from omiad.errors import InputError

_MAX_DISTANCES = 2**25
"""Distances held at once: 128 MiB."""

_NUM_DIRECTIONS = 32
"""Random directions in which a coreset measures distances, as PatchCore does."""


def coreset(patches: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Choose rows of patches (M, D) so that no patch is far from its nearest chosen one.

    The generator draws the first row, and each further row is the one farthest from those chosen
    before. This leaves no patch more than twice as far as the best choice of that size would
    (Gonzalez 1985; PatchCore, section 3.2). The result is (min(M, size),), in order of choice.
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


def soften(patches: Tensor, dim: int = -1) -> Tensor:
    """Divide the features of a stage, c values along `dim`, by their length where it is large.

    The divisor is sqrt(c (1 + q)), where q is the mean of the squares of a patch in units of
    `feature_norm`: strong patches differ by direction alone, as in a cosine distance, and weak
    patches, whose direction is noise, stay near one another.
    """
    q = patches.square().mean(dim, keepdim=True)
    return patches * (patches.shape[dim] * (1 + q)).rsqrt()


class NormalMemory(FreeRows):
    """Distance of each patch to the most similar normal patch.

    A patch is its features together with its weighted residual, each channel of the residual
    divided by the root mean square it has on normal images. So a patch is unusual when it looks
    like no normal patch, or when the model fails on it as it fails on no normal patch of that look.
    The part of each stage of the backbone is softened (`soften`), so that every stage has the same
    weight.
    The distance is PatchCore's (Roth et al. 2022) without its re-weighting. The category of a patch
    is not kept.

    Args:
        channels_per_stage: Channels of each stage, C in all.
        residual_weight: Weight of the residual relative to the features; 0 ignores the residual.

    Attributes:
        patches: Remembered patches (M, 2 C), none before `fit`.
        rms: Root mean square of the residual of each channel (C,).
    """

    patches: Tensor
    rms: Tensor

    def __init__(self, channels_per_stage: Sequence[int], *, residual_weight: float) -> None:
        super().__init__()
        self.channels_per_stage = list(channels_per_stage)
        self.residual_weight = residual_weight
        self.register_buffer("patches", torch.empty(0, 2 * sum(channels_per_stage)))
        self.register_buffer("rms", torch.ones(sum(channels_per_stage)))

    def fit(self, x_0: Tensor, residual: Tensor, rms: Tensor) -> None:
        """Replace the memory: features and residuals (M, C) of normal patches, and rms (C,)."""
        self.rms.copy_(rms)
        self.patches = self.joined(x_0, residual, rms)

    def joined(self, x_0: Tensor, residual: Tensor, rms: Tensor) -> Tensor:
        """Return patches (M, 2 C), as they are compared, of features and residual (M, C)."""
        both = (x_0.float(), residual.float() / rms.clamp(min=1e-6))
        parts = [part for x in both for part in torch.split(x, self.channels_per_stage, dim=1)]
        softened = [soften(part) for part in parts]
        weighted = [part * self.residual_weight for part in softened[len(parts) // 2 :]]
        return torch.cat([*softened[: len(parts) // 2], *weighted], dim=1)

    def forward(self, x_0: Tensor, residual: Tensor) -> Tensor:
        """Return the Euclidean distance of each patch to the nearest remembered one.

        Features and residuals (features minus reconstruction) are (B, C, h, w); the result, in
        float32, is (B, 1, h, w).
        """
        if not len(self.patches):
            raise InputError(
                "The memory of normal patches is empty. Score with a checkpoint that `omiad fit` "
                "wrote, or call omiad.calibration.calibrate with features of normal images first."
            )
        queries = self.joined(cells(x_0), cells(residual), self.rms)
        nearest = []
        # Half precision could not tell the distances apart.
        with torch.autocast(x_0.device.type, enabled=False):
            lengths = self.patches.square().sum(1)
            most = max(1, _MAX_DISTANCES // len(self.patches))
            # A graph for any batch cannot know how many parts there are.
            whole = torch.compiler.is_compiling()
            for part in (queries,) if whole else torch.split(queries, most):
                # The length of a query adds the same to all its distances, so it is left out.
                index = torch.addmm(lengths, part, self.patches.T, alpha=-2).argmin(1)
                nearest.append(torch.linalg.vector_norm(part - self.patches[index], dim=1))
        return torch.cat(nearest).view(-1, 1, *x_0.shape[-2:])


class AddedMemories(nn.Module):
    """A memory for each product that was added to a trained model.

    The memory of a product is searched for photographs of that product alone, so that no score of
    another product changes.

    Args:
        channels_per_stage: Channels of each stage.
        residual_weight: Weight of the residual relative to the features.

    Attributes:
        names: Names of the products.
        memories: The memory of each.
    """

    def __init__(self, channels_per_stage: Sequence[int], *, residual_weight: float) -> None:
        super().__init__()
        self._channels, self._weight = channels_per_stage, residual_weight
        self.names: list[str] = []
        self.memories = nn.ModuleList()

    def add(self, name: str) -> NormalMemory:
        """Add a product with an empty memory, and return the memory."""
        memory = NormalMemory(self._channels, residual_weight=self._weight)
        self.names.append(name)
        self.memories.append(memory)
        return memory

    def forward(
        self,
        distance: Tensor,
        x_0: Tensor,
        residual: Tensor,
        shown: Tensor,
        numbers: Mapping[str, int],
    ) -> Tensor:
        """Return the distance (B, 1, h, w) of each patch to the nearest normal patch.

        Args:
            distance: The distance to the patches of the products of the training.
            x_0: Features (B, C, h, w).
            residual: Features minus reconstruction.
            shown: Number of the product that each photograph shows (B,).
            numbers: Number of each product by its name.
        """
        for name, memory in zip(self.names, self.memories, strict=True):
            is_shown = shown == numbers[name]
            # A graph has no branches; elsewhere a product that nobody shows takes no time.
            if torch.compiler.is_compiling() or is_shown.any():
                nearer = torch.minimum(distance, memory(x_0, residual))
                distance = torch.where(is_shown.view(-1, 1, 1, 1), nearer, distance)
        return distance


def cells(x: Tensor) -> Tensor:
    """Return maps (B, C, h, w) as the vectors of their cells (B * h * w, C)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
