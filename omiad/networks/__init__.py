"""Denoising networks that map (x_t, t) to a raw output; their encoders are also discriminators."""

from omiad.networks.cost import cost_summary, count_macs, count_parameters
from omiad.networks.decoder import FeatureDecoder
from omiad.networks.dit import DiT, dit_base, dit_medium, dit_small
from omiad.networks.heads import Heads
from omiad.networks.protocol import Network
from omiad.networks.registry import build_network, network_spec, trust
from omiad.networks.unet import UNet, unet_base, unet_medium, unet_small, unet_tiny
from omiad.networks.uvit import UViT, uvit_base, uvit_medium, uvit_small

__all__ = [
    "DiT",
    "FeatureDecoder",
    "Heads",
    "Network",
    "UNet",
    "UViT",
    "build_network",
    "cost_summary",
    "count_macs",
    "count_parameters",
    "dit_base",
    "dit_medium",
    "dit_small",
    "network_spec",
    "trust",
    "unet_base",
    "unet_medium",
    "unet_small",
    "unet_tiny",
    "uvit_base",
    "uvit_medium",
    "uvit_small",
]
