"""Parameters and multiply-accumulates of a network, counted without computing an output."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from omiad.networks.protocol import Network


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(network: Network, shape: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates, attention included, of one sample of features (C, H, W).

    A copy on the meta device is counted, so the network is not touched.
    """
    with torch.device("meta"):
        copy = type(network)(**network.config)
        x, t = torch.empty(1, *shape), torch.ones(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        copy(x, t)
    return int(counter.get_total_flops()) // 2


def cost_summary(network: Network, shape: tuple[int, int, int]) -> str:
    """Return the size and cost of a network, for features (C, H, W), in one line.

    For example "UNet: 40.2 M parameters (encoder 12.0 M), 6.95 GMACs per image".
    """
    encoder = sum(parameter.numel() for parameter in network.encoder_parameters())
    return (
        f"{type(network).__name__}: {count_parameters(network) / 1e6:.1f} M parameters "
        f"(encoder {encoder / 1e6:.1f} M), {count_macs(network, shape) / 1e9:.3g} GMACs per image"
    )
