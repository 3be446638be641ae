"""Time of one photograph of anomalib's models beside omiad's, on the same backbone and machine.

    pip install anomalib==2.7.0  # in an environment of its own, beside omiad
    python tests/benchmarks/peer_speed.py MODEL [--repetitions 30]

PatchCore and Padim have the backbone and the size of the model; PatchCore remembers 10,000 patches
of one product, as `patchcore_peer.py` does, and Padim compares 100 channels, as it does by default
with a ResNet. EfficientAd is the small one, with networks of its own, at 448 and at its own size of
256 pixels. UniAD's transformer is that of `uniad_peer.py`, which reads the model's own features.
Weights, patches and statistics are random, which changes no time. Times are medians of
the processor's milliseconds on one thread in eager PyTorch, each model in its turn.
"""

from collections.abc import Callable

import torch
from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from jsonargparse import CLI
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from turns import in_turns
from uniad_peer import GRID, UniAD

from omiad import Detector
from omiad.features.fusing import fused
from omiad.resampling import resample

LAYERS = ["blocks.2", "blocks.4"]
"""Layers of EfficientNet-Lite2 with strides of 8 and 16, which the default model reads, too."""

PATCHES = 10_000
PADIM_CHANNELS = 100


def patchcore(backbone: str, image: Tensor) -> PatchcoreModel:
    """Return PatchCore with random patches."""
    model = PatchcoreModel(LAYERS, backbone, pre_trained=False)
    width = model.train()(image).shape[1]
    model.memory_bank = torch.randn(PATCHES, width)
    return model.eval()


def padim(backbone: str, image: Tensor) -> PadimModel:
    """Return Padim with random statistics."""
    model = PadimModel(backbone, LAYERS, pre_trained=False, n_features=PADIM_CHANNELS)
    channels, height, width = model.train()(image).shape[1:]
    model.gaussian.mean = torch.randn(channels, height * width)
    model.gaussian.inv_covariance = torch.eye(channels).expand(height * width, -1, -1).contiguous()
    return model.eval()


def efficient_ad() -> EfficientAdModel:
    """Return the small EfficientAd with random weights."""
    model = EfficientAdModel()
    for name, parameter in (*model.mean_std.items(), *model.quantiles.items()):
        parameter.data.fill_(float(name in ("std", "qb_st", "qb_ae")))
    return model.eval()


def uniad(detector: Detector) -> Callable[[Tensor], Tensor]:
    """Return UniAD's transformer with random weights behind the backbone of a detector."""
    model = UniAD(sum(detector.extractor.folding.channels)).eval()

    def distance(image: Tensor) -> Tensor:
        folded = detector.normalizer(detector.extractor.features(image))
        stages = detector.extractor.folding.unfolded(folded)
        x = torch.cat([F.adaptive_avg_pool2d(stage, GRID) for stage in stages], dim=1)
        cells = (model(x) - x).square().sum(1, keepdim=True).sqrt()
        return resample(cells, detector.extractor.image_size, corners=True)

    return distance


def main(model: str, *, repetitions: int = 30) -> None:
    """Measure.

    Args:
        model: Checkpoint of a model with EfficientNet-Lite2.
        repetitions: How often each is timed.
    """
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    detector = Detector.load(model)
    size, backbone = detector.extractor.image_size, detector.extractor.config["backbone"]
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8)
    pixels, small = torch.randn(1, 3, size, size), torch.rand(1, 3, 256, 256)
    peers = {
        f"PatchCore, {PATCHES:,} patches": patchcore(backbone, pixels),
        "Padim": padim(backbone, pixels),
        "EfficientAd, small": efficient_ad(),
    }
    bare, transformer = fused(detector.extractor.backbone, size), uniad(detector)
    calls = {
        "omiad": lambda: detector.assess_images(image, None),
        "UniAD's transformer": lambda: transformer(image),
        "the backbone alone, batch norms joined": lambda: bare(pixels),
        "the backbone alone, batch norms apart": lambda: detector.extractor.backbone(pixels),
        **{name: lambda peer=peer: peer(pixels) for name, peer in peers.items()},
        "EfficientAd, small, at 256": lambda: peers["EfficientAd, small"](small),
    }
    table = Table("one photograph, eager PyTorch", "ms")
    for name, milliseconds in in_turns(calls, repetitions).items():
        table.add_row(name, f"{milliseconds:.0f}")
    Console().print(table)


if __name__ == "__main__":
    CLI(main, as_positional=True)
