"""A frozen backbone without batch norms: the convolutions before them do their work."""

import copy
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.weak import WeakTensorKeyDictionary

TOLERANCE = 1e-4
"""Largest difference of a map, relative to its highest value, that rounding explains."""


@torch.inference_mode(False)
@torch.no_grad()
def fused(backbone: nn.Module, image_size: int) -> nn.Module:
    """Return a copy of a frozen backbone that computes the same maps faster, in float32.

    A batch norm with fixed statistics scales and shifts the output of the convolution before it,
    so the convolution can take the scale and the shift into its weights. On a CPU the copy keeps
    channels last in memory, which is the order that is fastest there.

    Args:
        backbone: The backbone, which stays as it is.
        image_size: Side of the image of noise by which both are compared.

    Returns:
        The copy; or the backbone, if it has no such pair, or a copy would compute other maps.
    """
    network = copy.deepcopy(backbone)
    noise = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    image = noise.to(next(backbone.parameters()).device)
    pairs = _pairs(network, image)
    names = {module: name for name, module in network.named_modules()}
    for convolution, norm in pairs:
        activation = [norm.drop, norm.act] if isinstance(norm, BatchNormAct2d) else []
        network.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        network.set_submodule(names[norm], nn.Sequential(*activation))
    if image.device.type == "cpu":
        network = network.to(memory_format=torch.channels_last)
    maps = zip(network(image), backbone(image), strict=True)
    is_same = all((a - b).abs().max() <= TOLERANCE * b.abs().max() for a, b in maps)
    return network if pairs and is_same else backbone


def _pairs(network: nn.Module, image: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return each convolution whose output a batch norm takes, with that batch norm."""
    made: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(convolution: nn.Module, _: object, output: Tensor) -> None:
        made[output] = convolution

    def join(norm: Any, given: tuple[Tensor]) -> None:
        if given[0] in made:
            pairs.append((made[given[0]], norm))

    handles = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(note))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            handles.append(module.register_forward_pre_hook(join))
    network(image)
    for handle in handles:
        handle.remove()
    return pairs
