"""What DiT and U-ViT share: patches as tokens, positions, attention, and the skeleton of both."""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.networks.layers import check_grid, full_precision, timestep_embedding
from omiad.networks.protocol import Network


def position_embedding(height: int, width: int, dim: int, *, device: torch.device) -> Tensor:
    """Embed the cells of a grid as cosines and sines, (height * width, dim).

    Half of the numbers encode the row and half encode the column (as in MAE and DiT), so dim is a
    multiple of 4.
    """
    rows, columns = (
        timestep_embedding(torch.arange(1, n + 1, device=device), dim // 2) for n in (height, width)
    )
    return torch.cat([rows.repeat_interleave(width, dim=0), columns.repeat(height, 1)], dim=1)


class Patches(nn.Module):
    """Cut a feature map into patches, and embed each patch and its position as a token."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(channels, dim, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to tokens (B, H / p * W / p, D)."""
        check_grid(x, self.patch, "patch")
        tokens: Tensor = self.embed(x)
        dim, rows, columns = tokens.shape[1:]
        positions = position_embedding(rows, columns, dim, device=x.device)
        return tokens.flatten(2).transpose(1, 2) + positions.to(tokens.dtype)

    def to_map(self, tokens: Tensor, grid: torch.Size) -> Tensor:
        """Arrange tokens (B, N, D) as a map (B, D, H / p, W / p) for a feature grid (H, W).

        Tokens that come before those of the patches, such as U-ViT's timestep, are left out.
        """
        height, width = (side // self.patch for side in grid)
        return rearrange(tokens[:, -height * width :], "b (h w) d -> b d h w", h=height)

    def to_features(self, pixels: Tensor, grid: torch.Size) -> Tensor:
        """Arrange predicted patches (B, N, p * p * C) as features (B, C, H, W)."""
        pattern, p = "b (h w) (p q c) -> b c (h p) (w q)", self.patch
        return rearrange(pixels, pattern, h=grid[0] // p, p=p, q=p)


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens; `bias` is that of queries, keys and values."""

    def __init__(self, dim: int, num_heads: int, *, bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.project = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        qkv = self.qkv(tokens)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        out: Tensor = self.project(attended)
        return out


def mlp(dim: int, *, approximate: str = "none") -> nn.Sequential:
    """Return the two layers that follow each attention, with 4 * dim hidden units."""
    return nn.Sequential(
        nn.Linear(dim, 4 * dim), nn.GELU(approximate=approximate), nn.Linear(4 * dim, dim)
    )


class Transformer(Network):
    """A transformer over the patches of a feature map; the first half of its blocks is the encoder.

    Args:
        channels: Channels of the input and of the output.
        patch: Side of a patch in cells.
        dim: Length of a token, a multiple of num_heads and, because of the positions, of 4.
        depth: Number of blocks, even. U-ViT has one more block in the middle.
        num_heads: Number of attention heads.
    """

    patches: Patches
    encoder: nn.ModuleList

    def __init__(
        self, channels: int, *, patch: int = 2, dim: int = 384, depth: int = 12, num_heads: int = 6
    ) -> None:
        super().__init__()
        is_positive = min(patch, dim, depth, num_heads) >= 1
        if not is_positive or dim % num_heads or dim % 4 or depth % 2:
            raise InputError(
                f"A transformer needs positive sizes, a dim that is a multiple of num_heads and of "
                f"4, and an even depth, but got patch {patch}, dim {dim}, depth {depth} and "
                f"num_heads {num_heads}."
            )
        sizes = {"patch": patch, "dim": dim, "depth": depth, "num_heads": num_heads}
        self.config = {"channels": channels, **sizes}
        self._build(channels, patch, dim, depth, num_heads)

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the tokens after each block of the encoder as maps (B, D, H / p, W / p)."""
        levels, _ = self._encode(x, t)
        return [self.patches.to_map(tokens, x.shape[2:]) for tokens in levels]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W) and the last of the encoder's levels."""
        levels, time = self._encode(x, t)
        encoding = self.patches.to_map(levels[-1], x.shape[2:])
        tokens = self._decode(levels, time)
        # At t_init the output is amplified, and half precision would show in the reconstruction.
        with full_precision(x.device.type):
            return self._predict(tokens, time, x.shape[2:]), encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the patch embedding and of the encoder's blocks."""
        return chain(self.patches.parameters(), self.encoder.parameters())

    @abstractmethod
    def _build(self, channels: int, patch: int, dim: int, depth: int, num_heads: int) -> None:
        """Make the layers."""

    @abstractmethod
    def _encode(self, x: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the tokens (B, N, D) after each block of the encoder, and t embedded (B, D)."""

    @abstractmethod
    def _decode(self, levels: list[Tensor], time: Tensor) -> Tensor:
        """Return the tokens (B, N, D) after the last block."""

    @abstractmethod
    def _predict(self, tokens: Tensor, time: Tensor, grid: torch.Size) -> Tensor:
        """Map the last tokens to the raw output (B, C, H, W), in the dtype of the weights."""
