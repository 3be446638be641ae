"""Building blocks of guided-diffusion's U-Net, and functions that all networks share."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Embed steps as cosines and sines of geometric frequencies, (B, dim).

    Args:
        t: Steps (B,), integers in 1..T. guided-diffusion counts from 0, so t - 1 is embedded.
        dim: Length of the embedding, even.
    """
    exponents = torch.arange(dim // 2, device=t.device, dtype=torch.float32) / (dim // 2)
    angles = (t - 1).float()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def full_precision(device_type: str) -> AbstractContextManager[object]:
    """Turn autocast off within a `with` block, if the device supports autocast."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm with the largest number of groups, up to 32, that divides the channels."""
    groups = max(g for g in range(1, min(32, channels) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def check_grid(x: Tensor, factor: int, option: str) -> None:
    """Reject features (B, C, H, W) whose grid is not a multiple of what the option sets."""
    height, width = x.shape[-2:]
    if height % factor or width % factor:
        raise InputError(
            f"The feature grid must be a multiple of {factor} for this network, but got {height} x "
            f"{width}. Change --data.feature_size or the network's {option}."
        )


def zeroed(module: nn.Module) -> nn.Module:
    """Set all parameters of a module to zero, so that its residual block starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Residual block in which the timestep scales and shifts the second normalisation."""

    def __init__(self, channels: int, out_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm_in = group_norm(channels)
        self.conv_in = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding_dim, 2 * out_channels)
        self.norm_out = group_norm(out_channels)
        self.conv_out = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Map x (B, C, H, W) and embedding (B, E) to (B, C_out, H, W)."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        scale, shift = self.embedding(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.norm_out(h) * (1 + scale) + shift
        out: Tensor = self.skip(x) + self.conv_out(F.silu(h))
        return out


class Attention(nn.Module):
    """Self-attention over positions, added to its input."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to the same shape."""
        qkv = self.qkv(self.norm(x).flatten(2))
        q, k, v = rearrange(qkv, "b (three h d) n -> three b h n d", three=3, h=self.num_heads)
        attended = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b (h d) n")
        out: Tensor = x + self.project(attended).view_as(x)
        return out


class Resample(nn.Module):
    """Double the grid by repeating each cell, then convolve; or halve it by the convolution."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, C, H, W) to a grid of twice or half the size."""
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv(x)
        return out
