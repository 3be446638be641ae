"""Small discriminators on the levels of a frozen encoder, for ADD."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omiad.networks.protocol import Network


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

    @classmethod
    def on(cls, network: Network, x: Tensor, *, width: int, seed: int) -> "Heads":
        """Build a head for every level of a network's encoder.

        Args:
            network: The network whose encoder the heads read.
            x: Any features (1, C, H, W) that the network accepts.
            width: Hidden channels of each head.
            seed: Seed of the initial weights; torch's global random state does not change.
        """
        with torch.no_grad():
            levels = network.encode_levels(x, torch.ones(1, dtype=torch.int64, device=x.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # noqa: TID251 (torch initialises from its global state)
            return cls([level.shape[1] for level in levels], width)

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Map levels (B, C_k, H_k, W_k) to one map of logits (B, 1, H_k, W_k) each."""
        return [head(level) for head, level in zip(self.heads, levels, strict=True)]
