"""Frozen backbone features on one grid."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.features.backbone import (
    build_backbone,
    load_pretrained,
    load_weights,
    stages_of,
    weights_file,
)

PRECISIONS: dict[str, torch.dtype | None] = {
    "float32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The dtype that a network runs in under autocast, None for the dtype of its weights."""


class FeatureExtractor(nn.Module):
    """Photographs to the feature maps of a frozen backbone, resized to one grid and concatenated.

    The resizing follows UniAD's neck (You et al. 2022, MFCN): bilinear between aligned corners,
    which leaves out values where it shrinks a map; `antialias` averages them instead. Always in
    evaluation mode, without gradients; the backbone runs under the caller's autocast.

    Args:
        backbone: Model name of timm; the default gives 24 + 32 + 56 + 160 = 272 channels.
        weights: "pretrained" (timm's), "random", or a file: weights in timm's naming
            (.safetensors, .pth, .pt, .bin) or a checkpoint of omiad (.ckpt); in a folder of such
            files the one named like the backbone.
        image_size: Side of the images in pixels.
        feature_size: Side of the feature grid in cells.
        stages: Which feature maps of the backbone, in timm's numbering; by default those down to
            a sixteenth of the image or, of a plain ViT, four blocks evenly spaced.
        antialias: Average where a map shrinks (bilinear, corners not aligned).
        window: Side of the square that every value of a map is first averaged over, odd, as in
            PatchCore; 1 is none.
        zero_pad: Average over zeros beyond the border too, instead of what lies inside alone.
        seed: Of random weights.

    Raises:
        MissingInputError: If the weights file does not exist.
        InputError: If backbone, stages or weights cannot be had, a size is below 1, or the window
            is even.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b4.aa_in1k",
        *,
        weights: str = "pretrained",
        image_size: int = 224,
        feature_size: int = 32,
        stages: Sequence[int] | None = None,
        antialias: bool = False,
        window: int = 1,
        zero_pad: bool = False,
        precision: str = "float32",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.precision = precision
        if min(image_size, feature_size) < 1 or (stages is not None and not stages):
            raise InputError(
                f"The extractor needs sizes of at least 1 and a stage, but got image_size "
                f"{image_size}, feature_size {feature_size}, stages {list(stages or ())}."
            )
        if window < 1 or window % 2 == 0:
            raise InputError(f"The extractor needs a window of an odd side, but got {window}.")
        self.backbone_name = backbone
        self.image_size = image_size
        self.feature_size = feature_size
        self.antialias = antialias
        self.window = window
        self.zero_pad = zero_pad
        self.backbone = build_backbone(backbone, stages, seed, image_size=image_size)
        self.stages = stages_of(self.backbone)
        if weights == "pretrained":
            self.backbone = load_pretrained(backbone, self.stages, image_size=image_size)
        elif weights != "random":
            load_weights(self.backbone, weights_file(Path(weights).expanduser(), backbone))
        config: dict[str, Any] = resolve_model_data_config(self.backbone)  # type: ignore[no-untyped-call]
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1))
        self._weights_hash: str | None = None
        self.register_load_state_dict_post_hook(_forget_hash)  # type: ignore[no-untyped-call]
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def build_empty(cls, config: dict[str, Any]) -> "FeatureExtractor":
        """Build from `config` alone, for a state dict to fill; touches no file and no network."""
        return cls(**config, weights="random")

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features.

        Args:
            images: RGB pixels (B, 3, S, S), uint8, S the extractor's image size.

        Returns:
            Raw features (B, C, feature_size, feature_size), float32.

        Raises:
            InputError: If dtype or shape differ from that.
        """
        expected = (3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            raise InputError(
                f"The extractor takes uint8 images of shape (B, {', '.join(map(str, expected))}), "
                f"but got {str(images.dtype).removeprefix('torch.')} of {tuple(images.shape)}."
            )
        normalized = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        maps: list[Tensor] = self.backbone(normalized)
        return torch.cat([self._to_grid(x) for x in maps], dim=1)

    def _to_grid(self, x: Tensor) -> Tensor:
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            x = x.permute(0, 3, 1, 2)
        size = (self.feature_size, self.feature_size)
        x = x.float()
        if self.window > 1:
            margin = self.window // 2
            x = F.avg_pool2d(x, self.window, 1, margin, count_include_pad=self.zero_pad)
        if self.antialias:
            return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return F.interpolate(x, size, mode="bilinear", align_corners=True)

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """The dtype of `precision` for autocast, None for the dtype of the weights."""
        return PRECISIONS[self.precision]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Extract features (B, C, h, w), half precision, of images (B, 3, S, S), uint8."""
        dtype = self.autocast_dtype
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            extracted: Tensor = self(images)
        return extracted.half()

    @property
    def channels_per_stage(self) -> list[int]:
        """Channels of each feature map, in the order they are concatenated."""
        return list(cast(Any, self.backbone).feature_info.channels())

    @property
    def num_channels(self) -> int:
        """Channels C of the features."""
        return sum(self.channels_per_stage)

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild the architecture, as plain data; weights and seed left out."""
        return {
            "backbone": self.backbone_name,
            "image_size": self.image_size,
            "feature_size": self.feature_size,
            "stages": self.stages,
            "antialias": self.antialias,
            "window": self.window,
            "zero_pad": self.zero_pad,
            "precision": self.precision,
        }

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the backbone's weights, the same on every device."""
        if self._weights_hash is None:
            self._weights_hash = weights_hash(self.backbone)
        return self._weights_hash

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that determines the features: config, weights and their dtype."""
        parts = [self.config, self.weights_hash, str(self.mean.dtype)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _forget_hash(extractor: nn.Module, _: object) -> None:
    cast(FeatureExtractor, extractor)._weights_hash = None


def weights_hash(module: nn.Module) -> str:
    """Return SHA-256 of a module's weights and buffers, in hexadecimal, the same on every device.

    Args:
        module: Any; counters of batch norm are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):  # has no effect on what it computes
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()
