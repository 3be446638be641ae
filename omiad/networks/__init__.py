"""Denoising networks: (x_t, t) -> raw output, with an encoder that is also the discriminator."""

from omiad.networks.cost import count_macs as count_macs
from omiad.networks.cost import count_parameters as count_parameters
from omiad.networks.cost import describe as describe
from omiad.networks.decoder import FeatureDecoder as FeatureDecoder
from omiad.networks.dit import DiT as DiT
from omiad.networks.dit import dit_base as dit_base
from omiad.networks.dit import dit_medium as dit_medium
from omiad.networks.dit import dit_small as dit_small
from omiad.networks.heads import Heads as Heads
from omiad.networks.protocol import Network as Network
from omiad.networks.protocol import build_network as build_network
from omiad.networks.protocol import network_spec as network_spec
from omiad.networks.unet import UNet as UNet
from omiad.networks.unet import unet_base as unet_base
from omiad.networks.unet import unet_medium as unet_medium
from omiad.networks.unet import unet_small as unet_small
from omiad.networks.unet import unet_tiny as unet_tiny
from omiad.networks.uvit import UViT as UViT
from omiad.networks.uvit import uvit_base as uvit_base
from omiad.networks.uvit import uvit_medium as uvit_medium
from omiad.networks.uvit import uvit_small as uvit_small

__all__ = [
    "DiT",
    "FeatureDecoder",
    "Heads",
    "Network",
    "UNet",
    "UViT",
    "build_network",
    "count_macs",
    "count_parameters",
    "describe",
    "dit_base",
    "dit_medium",
    "dit_small",
    "network_spec",
    "unet_base",
    "unet_medium",
    "unet_small",
    "unet_tiny",
    "uvit_base",
    "uvit_medium",
    "uvit_small",
]
