"""The U-Net of guided-diffusion, for feature maps with many channels."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.networks.layers import (
    Attention,
    Downsample,
    ResBlock,
    Upsample,
    full_precision,
    group_norm,
    timestep_embedding,
    zeroed,
)
from omiad.networks.protocol import Network


class Stage(nn.ModuleList):
    """Layers applied in turn; residual blocks also receive the timestep embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, C, H, W) and embedding (B, E) to the last layer's output."""
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(Network):
    """U-Net with residual blocks, attention at the coarser grids, and a timestep embedding.

    The default is guided-diffusion's at 32 x 32 with the channel multipliers of DDPM for CIFAR-10:
    40.2 M parameters and 6.95 GMACs for 272 channels.

    Args:
        channels: Channels of the features, in and out.
        width: Channels of the finest level; the timestep embedding has four times as many.
        multipliers: Channels of each level as multiples of the width.
        num_blocks: Residual blocks of each level on the way down; one more on the way up.
        attention_factors: Downsampling factors with attention after each block.
        num_heads: Attention heads.

    Raises:
        InputError: If no such network exists, e.g. where the heads do not divide the channels.
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
        if not multipliers or min(width, num_blocks, num_heads, *multipliers) < 1:
            raise InputError(
                f"A U-Net needs a positive width, num_blocks, num_heads and multipliers, but got "
                f"{width}, {num_blocks}, {num_heads} and {list(multipliers)}."
            )
        if width % 2:
            raise InputError(
                f"width must be even, for the timestep's cosines and sines, but got {width}."
            )
        if any(width * m % num_heads for m in multipliers):
            raise InputError(
                f"num_heads must divide the channels of every level, but got {num_heads} heads "
                f"for width {width} times {list(multipliers)}."
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

        def block(n_in: int, n_out: int, factor: int) -> Stage:
            layers: list[nn.Module] = [ResBlock(n_in, n_out, dim)]
            if factor in attention_factors:
                layers.append(Attention(n_out, num_heads))
            return Stage(layers)

        now = width * multipliers[0]
        self.down = nn.ModuleList([Stage([nn.Conv2d(channels, now, 3, padding=1)])])
        skips = [now]
        self.level_ends: list[int] = []
        for level, multiplier in enumerate(multipliers):
            for _ in range(num_blocks):
                self.down.append(block(now, width * multiplier, 2**level))
                now = width * multiplier
                skips.append(now)
            self.level_ends.append(len(self.down) - 1)
            if level + 1 < len(multipliers):
                self.down.append(Stage([Downsample(now)]))
                skips.append(now)
        self.middle = Stage(
            [ResBlock(now, now, dim), Attention(now, num_heads), ResBlock(now, now, dim)]
        )
        self.up = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for i in range(num_blocks + 1):
                stage = block(now + skips.pop(), width * multiplier, 2**level)
                now = width * multiplier
                if level and i == num_blocks:
                    stage.append(Upsample(now))
                self.up.append(stage)
        self.norm = group_norm(now)
        self.out = zeroed(nn.Conv2d(now, channels, 3, padding=1))

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the last output of the way down, before the middle (SiDA's discriminator)."""
        return self._encode(x, self._embed(t))[-1]

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        """Return the last output of each grid on the way down."""
        outputs = self._encode(x, self._embed(t))
        return [outputs[i] for i in self.level_ends]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw output (B, C, H, W), in float32, and the encoding (B, C', H', W')."""
        embedding = self._embed(t)
        skips = self._encode(x, embedding)
        encoding = skips[-1]
        h = self.middle(encoding, embedding)
        for stage in self.up:
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
        # At t_init the output is amplified, and half precision would show in the reconstruction.
        with full_precision(x.device.type):
            out: Tensor = self.out(F.silu(self.norm(h.to(self.norm.weight.dtype))))
        return out, encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the way down."""
        return self.down.parameters()

    def _embed(self, t: Tensor) -> Tensor:
        embedding: Tensor = self.embed(timestep_embedding(t, self.width).to(self.norm.weight.dtype))
        return embedding

    def _encode(self, x: Tensor, embedding: Tensor) -> list[Tensor]:
        height, width = x.shape[-2:]
        if height % self.factor or width % self.factor:
            raise InputError(
                f"This U-Net halves the grid {self.factor.bit_length() - 1} times, so the feature "
                f"grid must be a multiple of {self.factor}, but got {height} x {width}. Change "
                f"--data.feature_size or the network's multipliers."
            )
        skips = []
        for stage in self.down:
            x = stage(x, embedding)
            skips.append(x)
        return skips


def unet_tiny(channels: int) -> UNet:
    """Preset for tests and demonstrations on a CPU: width 32, two levels."""
    return UNet(channels, width=32, multipliers=(1, 2), num_blocks=1, attention_factors=(2,))


def unet_small(channels: int) -> UNet:
    """Preset of 5.1 M parameters and 0.31 GMACs for 152 channels at 16 x 16."""
    return UNet(channels, width=64, multipliers=(1, 2, 2), num_blocks=1)


def unet_medium(channels: int) -> UNet:
    """Preset for a CPU: 11.4 M parameters and 0.66 GMACs for 168 channels at 16 x 16."""
    return UNet(channels, width=96, multipliers=(1, 2, 2), num_blocks=1)


def unet_base(channels: int) -> UNet:
    """Preset of 40.2 M parameters and 6.95 GMACs for 272 channels at 32 x 32; the default."""
    return UNet(channels)
