"""Denoising networks: (x_t, t) -> raw output, with an encoder that is also the discriminator."""

from omiad.networks.cost import count_macs as count_macs
from omiad.networks.cost import count_parameters as count_parameters
from omiad.networks.cost import describe as describe
from omiad.networks.protocol import Network as Network
from omiad.networks.protocol import build_network as build_network
from omiad.networks.protocol import network_spec as network_spec
from omiad.networks.unet import UNet as UNet
from omiad.networks.unet import unet_base as unet_base
from omiad.networks.unet import unet_medium as unet_medium
from omiad.networks.unet import unet_small as unet_small
from omiad.networks.unet import unet_tiny as unet_tiny

__all__ = [
    "Network",
    "UNet",
    "build_network",
    "count_macs",
    "count_parameters",
    "describe",
    "network_spec",
    "unet_base",
    "unet_medium",
    "unet_small",
    "unet_tiny",
]
