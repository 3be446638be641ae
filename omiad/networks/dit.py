"""DiT (Peebles and Xie 2023) over feature maps, without classes."""

from collections.abc import Iterator
from itertools import chain

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.networks.layers import full_precision, timestep_embedding, zeroed
from omiad.networks.protocol import Network
from omiad.networks.transformer import Patches, SelfAttention, check_sizes, mlp

FREQUENCIES = 256
"""Numbers that a timestep is embedded as before its two layers."""


class DiTBlock(nn.Module):
    """Attention and MLP whose input is scaled and shifted, and output gated, by the timestep.

    Args:
        dim: Length of a token and of the timestep's embedding.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(dim, num_heads, bias=True)
        self.mlp = mlp(dim, approximate="tanh")
        self.modulation = zeroed(nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map tokens x (B, N, D) and embedding (B, D) to tokens of the same shape."""
        # (B, 1, D) each
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(F.silu(embedding))[
            :, None
        ].chunk(6, dim=-1)
        x = x + gate_a * self.attention(self.norm(x) * (1 + scale_a) + shift_a)
        out: Tensor = x + gate_m * self.mlp(self.norm(x) * (1 + scale_m) + shift_m)
        return out


class DiT(Network):
    """Diffusion transformer with adaLN-Zero; the default is DiT-S/2.

    33.3 M parameters and 6.26 GMACs for 272 channels at 32 x 32. DiT has no encoder of its own:
    the first half of the blocks is taken for it.

    Args:
        channels: Channels of the features, in and out.
        patch: Side of a patch in cells.
        dim: Length of a token.
        depth: Blocks, an even number.
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
        self.embed = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.patches = Patches(channels, dim, patch)
        blocks = [DiTBlock(dim, num_heads) for _ in range(depth)]
        self.encoder = nn.ModuleList(blocks[: depth // 2])
        self.decoder = nn.ModuleList(blocks[depth // 2 :])
        self.norm = nn.LayerNorm(dim, elementwise_affine=False, eps=1e-6)
        self.modulation = zeroed(nn.Linear(dim, 2 * dim))
        self.out = nn.Linear(dim, patch**2 * channels)
        zeroed(self.out)

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the tokens in the middle as a map (B, D, H / p, W / p)."""
        return self.encode_levels(x, t)[-1]

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the tokens behind each block of the first half as maps."""
        return [self.patches.to_map(y, x.shape[-2]) for y in self._encode(x, self._embed(t))]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W), in float32, and the encoding."""
        embedding = self._embed(t)
        tokens = self._encode(x, embedding)[-1]
        encoding = self.patches.to_map(tokens, x.shape[-2])
        for block in self.decoder:
            tokens = block(tokens, embedding)
        # At t_init the output is amplified, and half precision would show in the reconstruction.
        with full_precision(x.device.type):
            dtype = self.out.weight.dtype
            shift, scale = self.modulation(F.silu(embedding.to(dtype)))[:, None].chunk(2, dim=-1)
            patches = self.out(self.norm(tokens.to(dtype)) * (1 + scale) + shift)
        return self.patches.to_features(patches, x.shape[-2]), encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the patches' embedding and the first half of the blocks."""
        return chain(self.patches.parameters(), self.encoder.parameters())

    def _embed(self, t: Tensor) -> Tensor:
        frequencies = timestep_embedding(t, FREQUENCIES).to(self.out.weight.dtype)
        embedding: Tensor = self.embed(frequencies)
        return embedding

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = [self.patches(x)]
        for block in self.encoder:
            outputs.append(block(outputs[-1], embedding))
        return outputs[1:]


def dit_small(channels: int) -> DiT:
    """Preset of about unet_small's cost: 7.1 M parameters, 0.32 GMACs for 152 x 16 x 16."""
    return DiT(channels, dim=192, depth=10, num_heads=3)


def dit_medium(channels: int) -> DiT:
    """Preset of about unet_medium's cost: 15.6 M parameters, 0.68 GMACs for 168 x 16 x 16."""
    return DiT(channels, dim=320, depth=8, num_heads=5)


def dit_base(channels: int) -> DiT:
    """Preset of about unet_base's cost, DiT-S/2: 33.3 M parameters, 6.26 GMACs for 272 x 32 x 32.

    The paper does not print the size of its DiT.
    """
    return DiT(channels)
