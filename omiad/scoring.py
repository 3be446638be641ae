"""How the residual of each patch becomes an anomaly map and an image score."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError

Memory = Literal["shared", "product"]


@dataclass(frozen=True)
class Scoring:
    """How a residual becomes an anomaly map and an image score.

    Attributes:
        blur_sigma: Standard deviation of a Gaussian blur of the map, in pixels; 0 is no blur.
        pool_size: Side in pixels of the window whose highest mean is the image score. The window
            moves over the map before the blur.
        memory_size: Normal patches kept of each product, a coreset; 0 keeps none.
        memory: What patches are compared with. `shared`: patches of all products; the map is the
            distance to the nearest in features and residual (`omiad.memory`), or with `memory_size`
            0 the norm of the residual, as in the paper. `product`: patches and statistics of the
            product that is recognised (`omiad.product_memory`); with `memory_size` 0 the map is the
            distance of the residual.
        residual_weight: Weight of the residual: with `shared` in the distance, where features weigh
            1; with `product` the power of its distance, while that of features has the rest of 1.
        residual_whitening: With `product`, the power of the standard deviation that each principal
            direction of the residual is divided by: with 0 its distance is the norm, with 1 that of
            Mahalanobis.
    """

    blur_sigma: float = 0.0
    pool_size: int = 16
    memory_size: int = 0
    memory: Memory = "shared"
    residual_weight: float = 0.5
    residual_whitening: float = 1.0

    @property
    def remembers(self) -> bool:
        """Whether scores depend on photographs that the detector is calibrated with."""
        return self.memory_size > 0 or self.memory == "product"

    def __post_init__(self) -> None:
        """Refuse fields that are out of their range."""
        if self.pool_size < 1:
            raise InputError(f"scoring.pool_size must be at least 1, but got {self.pool_size}.")
        for name in ("blur_sigma", "memory_size", "residual_weight", "residual_whitening"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"scoring.{name} must be finite and not negative, but got {value}."
                )
        if self.memory not in get_args(Memory):
            raise InputError(
                f"scoring.memory must be {' or '.join(get_args(Memory))}, but got '{self.memory}'."
            )
        if self.memory == "product" and self.residual_weight > 1:
            raise InputError(
                f"scoring.residual_weight must be at most 1 with a memory of each product, but got "
                f"{self.residual_weight}."
            )


def residual_norm(residual: Tensor) -> Tensor:
    """Return the L2 norm over channels (B, 1, h, w), float32, of a residual (B, C, h, w)."""
    return residual.float().square().sum(dim=1, keepdim=True).sqrt()


Edges = Literal["mirror", "reflect", "zero"]


def gaussian_blur(maps: Tensor, sigma: float, *, edges: Edges, radius: int | None = None) -> Tensor:
    """Blur maps (B, H, W), float32, with a Gaussian of that many pixels; 0 is no blur.

    Beyond the edges lies, in the terms of scipy.ndimage, the map without its outermost pixels
    (`mirror`), the map with them (`reflect`), or nothing (`zero`). The kernel reaches `radius`
    pixels from its middle, by default 4 sigma as in scipy.
    """
    if sigma == 0:
        return maps
    height, width = (
        torch.from_numpy(blur_matrix(n, sigma, edges, radius)).to(maps) for n in maps.shape[1:]
    )
    with torch.autocast(maps.device.type, enabled=False):  # it would multiply in half precision
        return height @ maps @ width.T


@cache
def blur_matrix(
    size: int, sigma: float, edges: Edges, radius: int | None = None
) -> NDArray[np.float32]:
    """Return the matrix (size, size) that blurs a line of pixels; see `gaussian_blur`."""
    radius = int(4 * sigma + 0.5) if radius is None else radius
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights = np.tile(kernel / kernel.sum(), (size, 1))
    source = np.arange(size)[:, None] + offsets
    if edges == "zero":
        weights = weights * ((source >= 0) & (source < size))
        source = source.clip(0, size - 1)
    else:
        repeated = int(edges == "reflect")
        period = max(1, 2 * (size - 1 + repeated))
        source = source % period
        source = np.where(source < size, source, period - repeated - source)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], source), weights)
    return matrix.astype(np.float32)


def highest_window(anomaly_map: Tensor, side: int) -> Tensor:
    """Return the highest mean (B,) over a square window of maps (B, H, W)."""
    # A mean of means of rows takes 2 side additions for each window instead of side squared.
    rows = F.avg_pool2d(anomaly_map[:, None], (1, side), stride=1)
    return F.avg_pool2d(rows, (side, 1), stride=1).amax(dim=(1, 2, 3))


def map_scale(pixels: Tensor) -> tuple[float, float]:
    """Return the scores to draw darkest and brightest, so that pixels of normal images stay dark.

    The scale starts at the median and is 2.5 times as long as the distance from the median to the
    99th percentile.
    """
    values = pixels.flatten()
    values = values[:: 1 + len(values) // 2**24]  # torch.quantile takes no more
    low, high = torch.quantile(values.float(), values.new_tensor([0.5, 0.99]).float()).tolist()
    return low, low + 2.5 * max(high - low, 1e-12)
