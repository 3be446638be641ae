"""Building blocks that DiT and U-ViT share: patches as tokens, positions, attention, MLP."""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.networks.layers import timestep_embedding


def position_embedding(height: int, width: int, dim: int, *, device: torch.device) -> Tensor:
    """Embed the rows and columns of a grid as cosines and sines, (height * width, dim).

    Half of the numbers tell the row and half the column (MAE and DiT).

    Args:
        height: Rows.
        width: Columns.
        dim: Length of the embedding, a multiple of 4.
        device: Where it is computed.
    """
    rows, columns = (
        timestep_embedding(torch.arange(1, n + 1, device=device), dim // 2) for n in (height, width)
    )
    grid = [
        rows[:, None].expand(height, width, dim // 2),
        columns[None].expand(height, width, dim // 2),
    ]
    return torch.cat(grid, dim=-1).flatten(0, 1)


class Patches(nn.Module):
    """Cut a feature map into patches, embed each as a token, and say where it lies.

    Args:
        channels: Channels of the features.
        dim: Length of a token, a multiple of 4.
        patch: Side of a patch in cells.
    """

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to tokens (B, H / p * W / p, D).

        Raises:
            InputError: If the grid is no multiple of the patch.
        """
        height, width = x.shape[-2:]
        if height % self.patch or width % self.patch:
            raise InputError(
                f"This transformer cuts the grid into patches of {self.patch} x {self.patch}, so "
                f"the feature grid must be a multiple of {self.patch}, but got {height} x {width}. "
                f"Change --data.feature_size or the network's patch."
            )
        tokens: Tensor = self.embed(x)
        dim, rows, columns = tokens.shape[1:]
        positions = position_embedding(rows, columns, dim, device=x.device)
        return tokens.flatten(2).transpose(1, 2) + positions.to(tokens.dtype)

    def to_map(self, tokens: Tensor, height: int) -> Tensor:
        """Lay tokens (B, N, D) out as a map (B, D, H / p, W / p) below a grid of that height."""
        return rearrange(tokens, "b (h w) d -> b d h w", h=height // self.patch)

    def to_features(self, pixels: Tensor, height: int) -> Tensor:
        """Lay predicted patches (B, N, p * p * C) out as features (B, C, H, W)."""
        return rearrange(
            pixels,
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=height // self.patch,
            p=self.patch,
            q=self.patch,
        )


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens.

    Args:
        dim: Length of a token, a multiple of the number of heads.
        num_heads: Attention heads.
        bias: Whether queries, keys and values have a bias.
    """

    def __init__(self, dim: int, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.project = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        q, k, v = rearrange(
            self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.project(rearrange(attended, "b h n d -> b n (h d)"))
        return out


def mlp(dim: int, *, approximate: str = "none") -> nn.Sequential:
    """Return the two layers behind each attention, four times as wide in between."""
    return nn.Sequential(
        nn.Linear(dim, 4 * dim), nn.GELU(approximate=approximate), nn.Linear(4 * dim, dim)
    )


def check_sizes(*, patch: int, dim: int, depth: int, num_heads: int) -> None:
    """Refuse a transformer that cannot be built.

    Raises:
        InputError: If a size is below 1, the heads do not divide the width, the width is no
            multiple of 4, or the depth is odd.
    """
    if min(patch, dim, depth, num_heads) < 1:
        raise InputError(
            f"A transformer needs a positive patch, dim, depth and num_heads, but got {patch}, "
            f"{dim}, {depth} and {num_heads}."
        )
    if dim % num_heads or dim % 4:
        raise InputError(
            f"dim must be a multiple of num_heads and, for the positions' cosines and sines, of 4, "
            f"but got dim {dim} with {num_heads} heads."
        )
    if depth % 2:
        raise InputError(
            f"depth must be even, since its first half is the encoder, but got {depth}."
        )
