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

    Half of the numbers encode the row and half encode the column (as in MAE and DiT).

    Args:
        height: Number of rows.
        width: Number of columns.
        dim: Length of the embedding, a multiple of 4.
        device: Device of the result.
    """
    rows, columns = (
        timestep_embedding(torch.arange(1, n + 1, device=device), dim // 2) for n in (height, width)
    )
    return torch.cat([rows.repeat_interleave(width, dim=0), columns.repeat(height, 1)], dim=1)


class Patches(nn.Module):
    """Cut a feature map into patches, and embed each patch and its position as a token.

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
            InputError: If a side of the grid is not a multiple of the patch.
        """
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
        return rearrange(
            pixels,
            "b (h w) (p q c) -> b c (h p) (w q)",
            h=grid[0] // self.patch,
            p=self.patch,
            q=self.patch,
        )


class SelfAttention(nn.Module):
    """Multi-head self-attention over tokens.

    Args:
        dim: Length of a token, a multiple of the number of heads.
        num_heads: Number of attention heads.
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
    """Return the two layers that follow each attention, with 4 * dim hidden units."""
    return nn.Sequential(
        nn.Linear(dim, 4 * dim), nn.GELU(approximate=approximate), nn.Linear(4 * dim, dim)
    )


class Transformer(Network):
    """A transformer over the patches of a feature map; the first half of its blocks is the encoder.

    Args:
        channels: Channels of the input and of the output.
        patch: Side of a patch in cells.
        dim: Length of a token.
        depth: Number of blocks, even. U-ViT has one more block in the middle.
        num_heads: Number of attention heads.

    Raises:
        InputError: If a size is below 1, the width is not a multiple of the heads and of 4, or the
            depth is odd.
    """

    patches: Patches
    encoder: nn.ModuleList

    def __init__(
        self, channels: int, *, patch: int = 2, dim: int = 384, depth: int = 12, num_heads: int = 6
    ) -> None:
        super().__init__()
        if min(patch, dim, depth, num_heads) < 1:
            raise InputError(
                f"A transformer needs a positive patch, dim, depth and num_heads, but got {patch}, "
                f"{dim}, {depth} and {num_heads}."
            )
        if dim % num_heads or dim % 4:
            raise InputError(
                f"dim must be a multiple of num_heads and, because of the position embedding, of "
                f"4, but got dim {dim} with num_heads {num_heads}."
            )
        if depth % 2:
            raise InputError(
                f"depth must be even because half of the blocks are the encoder, but got {depth}."
            )
        self.config = {
            "channels": channels,
            "patch": patch,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
        }
        self._build(channels, patch, dim, depth, num_heads)

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the tokens after the encoder's last block as a map (B, D, H / p, W / p)."""
        return self.encode_levels(x, t)[-1]

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the tokens after each block of the encoder as maps (B, D, H / p, W / p)."""
        levels = self._encode(x, self._embed(t))
        return [self.patches.to_map(tokens, x.shape[2:]) for tokens in levels]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W), in float32, and the encoding."""
        time = self._embed(t)
        levels = self._encode(x, time)
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
    def _embed(self, t: Tensor) -> Tensor:
        """Embed the steps t (B,) as (B, D)."""

    @abstractmethod
    def _encode(self, x: Tensor, time: Tensor) -> list[Tensor]:
        """Return the tokens (B, N, D) after each block of the encoder."""

    @abstractmethod
    def _decode(self, levels: list[Tensor], time: Tensor) -> Tensor:
        """Return the tokens (B, N, D) after the last block."""

    @abstractmethod
    def _predict(self, tokens: Tensor, time: Tensor, grid: torch.Size) -> Tensor:
        """Map the last tokens to the raw output (B, C, H, W), in the dtype of the weights."""
