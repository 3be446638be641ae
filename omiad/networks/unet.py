"""The U-Net of guided-diffusion, for feature maps with many channels."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.networks.layers import (
    Attention,
    Resample,
    ResBlock,
    check_grid,
    full_precision,
    group_norm,
    timestep_embedding,
    zeroed,
)
from omiad.networks.protocol import Network


class Stage(nn.ModuleList):
    """Layers in sequence; residual blocks also receive the timestep embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, C, H, W) and embedding (B, E) to the last layer's output."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(Network):
    """U-Net with residual blocks, attention on the coarser grids, and a timestep embedding.

    The default is guided-diffusion's U-Net for 32 x 32 with the channel multipliers of DDPM for
    CIFAR-10. It has 40.2 M parameters and 6.95 GMACs for 272 channels.

    Args:
        channels: Channels of the input and of the output.
        width: Channels of the finest level, even because of the timestep embedding, which has four
            times as many.
        multipliers: Channels of each level as multiples of the width.
        num_blocks: Residual blocks in each level of the encoder; the decoder has one more.
        attention_factors: Downsampling factors at which attention follows each residual block.
        num_heads: Number of attention heads, which must divide the channels of every level.
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        num_blocks: int = 2,
        attention_factors: Sequence[int] = (2, 4),
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        is_positive = multipliers and min(width, num_blocks, num_heads, *multipliers) >= 1
        if not is_positive or width % 2 or any(width * m % num_heads for m in multipliers):
            raise InputError(
                f"A U-Net needs positive sizes, an even width, and channels in every level that "
                f"num_heads divides, but got width {width}, multipliers {list(multipliers)}, "
                f"num_blocks {num_blocks} and num_heads {num_heads}."
            )
        self.config = {
            "channels": channels,
            "width": width,
            "multipliers": list(multipliers),
            "num_blocks": num_blocks,
            "attention_factors": list(attention_factors),
            "num_heads": num_heads,
        }
        self.factor = 2 ** (len(multipliers) - 1)
        self.width = width
        dim = 4 * width
        self.embed = nn.Sequential(nn.Linear(width, dim), nn.SiLU(), nn.Linear(dim, dim))

        def block(n_in: int, n_out: int, level: int) -> Stage:
            layers: list[nn.Module] = [ResBlock(n_in, n_out, dim)]
            if 2**level in attention_factors:
                layers.append(Attention(n_out, num_heads))
            return Stage(layers)

        levels = [(level, width * multiplier) for level, multiplier in enumerate(multipliers)]
        now = width * multipliers[0]
        self.down = nn.ModuleList([Stage([nn.Conv2d(channels, now, 3, padding=1)])])
        skips = [now]
        self.level_ends: list[int] = []
        for level, n_out in levels:
            for _ in range(num_blocks):
                self.down.append(block(now, n_out, level))
                skips.append(now := n_out)
            self.level_ends.append(len(self.down) - 1)
            if level + 1 < len(levels):
                self.down.append(Stage([Resample(now, up=False)]))
                skips.append(now)
        self.middle = Stage(
            [ResBlock(now, now, dim), Attention(now, num_heads), ResBlock(now, now, dim)]
        )
        self.up = nn.ModuleList()
        for level, n_out in reversed(levels):
            for _ in range(num_blocks + 1):
                stage = block(now + skips.pop(), n_out, level)
                self.up.append(stage)
                now = n_out
            if level:
                stage.append(Resample(now, up=True))
        self.norm = group_norm(now)
        self.out = zeroed(nn.Conv2d(now, channels, 3, padding=1))

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the encoder's last output on each grid, without the middle (as SiDA does)."""
        outputs, _ = self._encode(x, t)
        return [outputs[i] for i in self.level_ends]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W) and the encoder's last output."""
        skips, embedding = self._encode(x, t)
        encoding = skips[-1]
        h = self.middle(encoding, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        # At t_init the output is amplified, and half precision would show in the reconstruction.
        with full_precision(x.device.type):
            out: Tensor = self.out(F.silu(self.norm(h.to(self.norm.weight.dtype))))
        return out, encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder."""
        return self.down.parameters()

    def _encode(self, x: Tensor, t: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the output of every stage of the encoder, and t embedded (B, E)."""
        check_grid(x, self.factor, "multipliers")
        embedding = self.embed(timestep_embedding(t, self.width).to(self.norm.weight.dtype))
        outputs = []
        for stage in self.down:
            x = stage(x, embedding)
            outputs.append(x)
        return outputs, embedding


def unet_tiny(channels: int) -> UNet:
    """Preset for tests and demonstrations on a CPU: width 32, two levels."""
    return UNet(channels, width=32, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))


def unet_small(channels: int) -> UNet:
    """Preset with 5.1 M parameters and 0.31 GMACs for 152 channels at 16 x 16."""
    return UNet(channels, width=64, multipliers=(1, 2, 2), num_blocks=1)


def unet_medium(channels: int) -> UNet:
    """Preset for a CPU, with 11.4 M parameters and 0.66 GMACs for 168 channels at 16 x 16."""
    return UNet(channels, width=96, multipliers=(1, 2, 2), num_blocks=1)


def unet_base(channels: int) -> UNet:
    """Default network, with 40.2 M parameters and 6.95 GMACs for 272 channels at 32 x 32."""
    return UNet(channels)
