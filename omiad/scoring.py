"""From a residual to an anomaly map and an image score."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError


@dataclass(frozen=True)
class Scoring:
    """How a residual becomes an anomaly map and an image score.

    Attributes:
        blur_sigma: Standard deviation of a Gaussian blur of the map, in pixels; 0 is none.
        pool_size: Side in pixels of the window whose highest mean before the blur is the image
            score.
        memory_size: Normal patches kept of each category, a coreset; the map is then the distance
            to the nearest in features and residual (`omiad.memory`). 0 keeps none: the map is the
            norm of the residual, as in the paper.
        residual_weight: Weight of the residual beside the features in that distance.
    """

    blur_sigma: float = 0.0
    pool_size: int = 16
    memory_size: int = 0
    residual_weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: If a field is out of its range.
        """
        if not (math.isfinite(self.blur_sigma) and self.blur_sigma >= 0):
            raise InputError(
                f"scoring.blur_sigma must be finite and not negative, but got {self.blur_sigma}."
            )
        if self.pool_size < 1:
            raise InputError(f"scoring.pool_size must be at least 1, but got {self.pool_size}.")
        if self.memory_size < 0:
            raise InputError(
                f"scoring.memory_size must not be negative, but got {self.memory_size}."
            )
        if not (math.isfinite(self.residual_weight) and self.residual_weight >= 0):
            raise InputError(
                f"scoring.residual_weight must be finite and not negative, but got "
                f"{self.residual_weight}."
            )


def residual_norm(residual: Tensor) -> Tensor:
    """Return the L2 norm over channels (B, 1, h, w), float32, of a residual (B, C, h, w)."""
    return residual.float().square().sum(dim=1, keepdim=True).sqrt()


def anomaly_map(distance: Tensor, size: int) -> Tensor:
    """Bring the distance of each patch from what is normal to the pixels.

    It is upsampled bilinearly with aligned corners (UniAD, models/reconstructions/uniad.py), and
    still without a blur, which follows the image score.

    Args:
        distance: How far each cell of the feature grid is from normal (B, 1, h, w).
        size: Side of the map in pixels.

    Returns:
        Anomaly maps (B, size, size), float32, not normalised.
    """
    pixels = F.interpolate(distance, size=(size, size), mode="bilinear", align_corners=True)
    return pixels[:, 0]


def blurred(anomaly_map: Tensor, scoring: Scoring) -> Tensor:
    """Return maps (B, H, W) after the blur: a Gaussian cut at 4 sigma, edges reflected (scipy)."""
    if scoring.blur_sigma == 0:
        return anomaly_map
    x, sigma = anomaly_map[:, None], scoring.blur_sigma
    radius = min(int(4 * sigma + 0.5), x.shape[-1] - 1, x.shape[-2] - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    with torch.autocast(x.device.type, enabled=False):  # it would convolve in half precision
        x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
        x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="reflect"), kernel.view(1, 1, -1, 1))
    return x[:, 0]


def image_score(anomaly_map: Tensor, scoring: Scoring) -> Tensor:
    """Return the highest mean over a square window (UniAD, utils/eval_helper.py, EvalImageMax).

    Args:
        anomaly_map: Maps (B, H, W), not blurred.
        scoring: Size of the window.

    Returns:
        Scores (B,).

    Raises:
        InputError: If the window is larger than the map.
    """
    side = scoring.pool_size
    if side > min(anomaly_map.shape[-2:]):
        raise InputError(
            f"scoring.pool_size {side} is larger than the map of {anomaly_map.shape[-2]} x "
            f"{anomaly_map.shape[-1]} pixels. Lower --model.scoring.pool_size."
        )
    return highest_window(anomaly_map, side)


def highest_window(anomaly_map: Tensor, side: int) -> Tensor:
    """Return the highest mean (B,) over a square window of maps (B, H, W)."""
    # A mean of means of rows: 2 side additions for each window instead of its square.
    rows = F.avg_pool2d(anomaly_map[:, None], (1, side), stride=1)
    return F.avg_pool2d(rows, (side, 1), stride=1).amax(dim=(1, 2, 3))
