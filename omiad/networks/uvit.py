"""U-ViT (Bao et al. 2023) over feature maps, without class labels."""

import torch
from torch import Tensor, nn

from omiad.networks.layers import timestep_embedding
from omiad.networks.transformer import Patches, SelfAttention, Transformer, mlp


class UViTBlock(nn.Module):
    """Attention and an MLP, each after a layer norm; decoder blocks take a long skip connection."""

    def __init__(self, dim: int, num_heads: int, *, skip: bool = False) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * dim, dim) if skip else None
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, bias=False)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(self, x: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Map tokens x (B, N, D), and those of an encoder block, to tokens of the same shape."""
        if self.skip is not None and earlier is not None:
            x = self.skip(torch.cat([x, earlier], dim=-1))
        x = x + self.attention(self.norm_attention(x))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class UViT(Transformer):
    """Transformer with the long skip connections of a U-Net and the timestep as a token.

    The default has 26.3 M parameters and 7.92 GMACs for 272 channels at 32 x 32.

    Deviation: U-ViT learns its position embedding. Here positions are fixed cosines and sines, as
    in DiT, so that a network accepts any grid.
    """

    def _build(self, channels: int, patch: int, dim: int, depth: int, num_heads: int) -> None:
        self.dim = dim
        self.patches = Patches(channels, dim, patch)
        half = range(depth // 2)
        self.encoder = nn.ModuleList([UViTBlock(dim, num_heads) for _ in half])
        self.middle = UViTBlock(dim, num_heads)
        self.decoder = nn.ModuleList([UViTBlock(dim, num_heads, skip=True) for _ in half])
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, patch**2 * channels)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as U-ViT does
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def _encode(self, x: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        tokens: Tensor = self.patches(x)
        time = timestep_embedding(t, self.dim)
        outputs = [torch.cat([time.to(tokens.dtype)[:, None], tokens], dim=1)]
        for block in self.encoder:
            outputs.append(block(outputs[-1]))
        return outputs[1:], time

    def _decode(self, levels: list[Tensor], time: Tensor) -> Tensor:
        tokens: Tensor = self.middle(levels[-1])
        for block, earlier in zip(self.decoder, reversed(levels), strict=True):
            tokens = block(tokens, earlier)
        return tokens

    def _predict(self, tokens: Tensor, time: Tensor, grid: torch.Size) -> Tensor:
        pixels = self.predict(self.norm(tokens[:, 1:].to(self.norm.weight.dtype)))
        out: Tensor = self.out(self.patches.to_features(pixels, grid))
        return out


def uvit_small(channels: int) -> UViT:
    """Preset with about the cost of unet_small: 3.8 M parameters, 0.30 GMACs for 152 x 16 x 16."""
    return UViT(channels, dim=192, depth=6, num_heads=3)


def uvit_medium(channels: int) -> UViT:
    """Preset with about the cost of unet_medium: 9.9 M parameters, 0.71 GMACs, 168 x 16 x 16."""
    return UViT(channels, dim=320, depth=6, num_heads=5)


def uvit_base(channels: int) -> UViT:
    """Preset with about the cost of unet_base; the paper does not state the size of its U-ViT."""
    return UViT(channels)
