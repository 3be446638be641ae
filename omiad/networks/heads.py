"""Small discriminators on the levels of a frozen encoder, for ADD."""

from collections.abc import Sequence

from torch import Tensor, nn


class Heads(nn.Module):
    """Three convolutions for each level of an encoder, which give a map of logits.

    Args:
        channels: Channels of each level.
        width: Hidden channels of each head.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(n, width, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 1),
            )
            for n in channels
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C_k, H_k, W_k) to one map of logits (B, 1, H_k, W_k) each."""
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]
