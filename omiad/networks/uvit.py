"""U-ViT (Bao et al. 2023) over feature maps, without classes."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from omiad.networks.layers import full_precision, timestep_embedding
from omiad.networks.protocol import Network
from omiad.networks.transformer import Patches, SelfAttention, check_sizes, mlp


class UViTBlock(nn.Module):
    """Attention and MLP behind layer norms, with a long skip connection on the way out.

    Args:
        dim: Length of a token.
        num_heads: Attention heads.
        skip: Whether the block takes the tokens of an earlier one too.
    """

    def __init__(self, dim: int, num_heads: int, *, skip: bool = False) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * dim, dim) if skip else None
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, bias=False)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(self, x: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Map tokens x (B, N, D), and those of an earlier block, to tokens of the same shape."""
        if self.skip is not None and earlier is not None:
            x = self.skip(torch.cat([x, earlier], dim=-1))
        x = x + self.attention(self.norm_attention(x))
        out: Tensor = x + self.mlp(self.norm_mlp(x))
        return out


class UViT(Network):
    """Transformer with the long skip connections of a U-Net, and the timestep as a token.

    The default has 26.3 M parameters and 7.92 GMACs for 272 channels at 32 x 32.

    Deviation: positions are fixed cosines and sines as in DiT where U-ViT learns them, so that a
    network fits any grid.

    Args:
        channels: Channels of the features, in and out.
        patch: Side of a patch in cells.
        dim: Length of a token.
        depth: Blocks on the way in and out together, an even number; one more lies between.
        num_heads: Attention heads.

    Raises:
        InputError: If no such network exists, e.g. where the heads do not divide the width.
    """

    def __init__(
        self,
        channels: int,
        *,
        patch: int = 2,
        dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
    ) -> None:
        super().__init__()
        check_sizes(patch=patch, dim=dim, depth=depth, num_heads=num_heads)
        self.config = {
            "channels": channels,
            "patch": patch,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
        }
        self.dim = dim
        self.patches = Patches(channels, dim, patch)
        half = range(depth // 2)
        self.encoder = nn.ModuleList([UViTBlock(dim, num_heads) for _ in half])
        self.middle = UViTBlock(dim, num_heads)
        self.decoder = nn.ModuleList([UViTBlock(dim, num_heads, skip=True) for _ in half])
        self.norm = nn.LayerNorm(dim)
        self.predict = nn.Linear(dim, patch**2 * channels)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)
        self.apply(_initialise)

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the last tokens of the way in, without time, as a map (B, D, H / p, W / p)."""
        return self.encode_levels(x, t)[-1]

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the tokens behind each block of the way in, without time, as maps."""
        return [self._to_map(tokens, x.shape[-2]) for tokens in self._encode(x, t)]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W), in float32, and the encoding."""
        skips = self._encode(x, t)
        encoding = self._to_map(skips[-1], x.shape[-2])
        tokens = self.middle(skips[-1])
        for block in self.decoder:
            tokens = block(tokens, skips.pop())
        # At t_init the output is amplified, and half precision would show in the reconstruction.
        with full_precision(x.device.type):
            patches = self.predict(self.norm(tokens[:, 1:].to(self.norm.weight.dtype)))
            out: Tensor = self.out(self.patches.to_features(patches, x.shape[-2]))
        return out, encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the patches' embedding and the way in."""
        return chain(self.patches.parameters(), self.encoder.parameters())

    def _encode(self, x: Tensor, t: Tensor) -> list[Tensor]:
        tokens: Tensor = self.patches(x)
        time = timestep_embedding(t, self.dim).to(tokens.dtype)[:, None]
        tokens = torch.cat([time, tokens], dim=1)
        outputs = []
        for block in self.encoder:
            tokens = block(tokens)
            outputs.append(tokens)
        return outputs

    def _to_map(self, tokens: Tensor, height: int) -> Tensor:
        return self.patches.to_map(tokens[:, 1:], height)


def _initialise(module: nn.Module) -> None:
    """Draw the linear layers' weights as U-ViT does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def uvit_small(channels: int) -> UViT:
    """Preset of about unet_small's cost: 3.8 M parameters, 0.30 GMACs for 152 x 16 x 16."""
    return UViT(channels, dim=192, depth=6, num_heads=3)


def uvit_medium(channels: int) -> UViT:
    """Preset of about unet_medium's cost: 9.9 M parameters, 0.71 GMACs for 168 x 16 x 16."""
    return UViT(channels, dim=320, depth=6, num_heads=5)


def uvit_base(channels: int) -> UViT:
    """Preset of about unet_base's cost: 26.3 M parameters, 7.92 GMACs for 272 x 32 x 32.

    The paper does not print the size of its U-ViT.
    """
    return UViT(channels)
