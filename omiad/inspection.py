"""What a detector says about one photograph: a decision, its reason, and where the defects are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, nan
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from omiad.products import Products, Threshold

Decision = Literal["ok", "defect", "unknown product", "not calibrated"]

DECISIONS: tuple[Decision, ...] = get_args(Decision)
"""Decisions by their numbers."""

NOT_CALIBRATED = DECISIONS.index("not calibrated")

_NEIGHBOURS = np.ones((3, 3), np.bool_)
"""Pixels that touch at a corner belong to one region, as in AU-PRO."""


class Region(NamedTuple):
    """A defect, in pixels of the photograph.

    Attributes:
        box: Left, top, right and bottom edge; right and bottom lie outside.
        area: Number of pixels.
        peak: Highest value of the anomaly map in the region.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of inspecting a photograph.

    Attributes:
        decision: "ok", "defect", "unknown product" (the photograph is near no product that the
            model knows), or "not calibrated" (the model has no threshold for it).
        category: The product, recognised or given; None if it is unknown.
        score: Image score; higher is more anomalous. Scores of different models do not compare.
        p_value: Share of normal photographs that score as high; None without a threshold.
        threshold: Thresholds of the product; None if the product is unknown or has none.
        anomaly_map: Pixel scores (H, W), float32, of the canvas to which the model resizes.
        regions: Where the map of a defective photograph is above the threshold, the highest peak
            first. There may be none, as the score has a threshold of its own.
        size: Width and height of the photograph in pixels.

    Examples:
        >>> from omiad import Detector
        >>> result = Detector.load("model.ckpt").predict("hole.png")
        >>> left, top, right, bottom = result.regions[0].box
        >>> bool(result.mask()[top:bottom, left:right].any())
        True
        >>> result.mask().shape == result.size[::-1]
        True
    """

    decision: Decision
    category: str | None
    score: float
    p_value: float | None
    threshold: Threshold | None
    anomaly_map: NDArray[np.float32]
    regions: list[Region]
    size: tuple[int, int]

    def mask(self) -> NDArray[np.bool_]:
        """Return the defective pixels (H, W) at the photograph's own size."""
        width, height = self.size
        if self.decision != "defect" or self.threshold is None:
            return np.zeros((height, width), np.bool_)
        full = Image.fromarray(self.anomaly_map).resize(self.size, Image.Resampling.BILINEAR)
        defective: NDArray[np.bool_] = np.asarray(full) > self.threshold.peak
        return defective


def find_regions(
    anomaly_map: NDArray[np.float32], threshold: float, size: tuple[int, int]
) -> list[Region]:
    """Return the connected regions of a map (H, W) above a threshold, the highest peak first.

    Boxes and areas are scaled to a photograph of `size`, its width and height.
    """
    labels, count = ndimage.label(anomaly_map > threshold, _NEIGHBOURS)
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    peaks = ndimage.maximum(anomaly_map, labels, numbers)
    areas = np.bincount(labels.ravel())[1:]
    horizontal, vertical = size[0] / anomaly_map.shape[1], size[1] / anomaly_map.shape[0]
    regions = []
    for (rows, columns), area, peak in zip(ndimage.find_objects(labels), areas, peaks, strict=True):
        left, top = floor(columns.start * horizontal), floor(rows.start * vertical)
        right, bottom = ceil(columns.stop * horizontal), ceil(rows.stop * vertical)
        pixels = max(1, round(area * horizontal * vertical))
        regions.append(Region((left, top, right, bottom), pixels, float(peak)))
    return sorted(regions, key=lambda region: -region.peak)


class Verdict(NamedTuple):
    """Decisions about photographs, as tensors.

    Attributes:
        p_value: P-values (B,), float64; NaN without a threshold.
        decision: Positions in `DECISIONS` (B,), int64.
    """

    p_value: Tensor
    decision: Tensor


class Judge:
    """Decides about photographs by the thresholds of the products that they show.

    Args:
        products: The products that the model knows.
        rate: False-alarm rate; None for the rates of `Products.rates`.
        category: The product that all photographs show; None if each may show any product.

    Raises:
        InputError: If the model does not know the product, or if the photographs of a product that
            may be shown do not support the rate.
    """

    def __init__(self, products: Products, rate: float | None, category: str | None = None) -> None:
        shown = range(len(products.names)) if category is None else [products.number(category)]
        self._products = products
        self._thresholds = {
            number: products.threshold(number, rate) for number in shown if products.counts[number]
        }

    def verdict(self, score: Tensor, shown: Tensor) -> Verdict:
        """Decide by image scores (B,) and the numbers of the products that are shown (B,)."""
        names = self._products.names
        images = [nan] * (len(names) + 1)  # the last of none
        for number, each in self._thresholds.items():
            images[number] = each.image
        threshold = score.new_tensor(images)[torch.where(shown < 0, len(names), shown)]
        decided = torch.where(threshold.isnan(), NOT_CALIBRATED, (score > threshold).long())
        otherwise = DECISIONS.index("unknown product") if names else NOT_CALIBRATED
        return Verdict(
            torch.where(threshold.isnan(), nan, self._products.p_values(score, shown)),
            torch.where(shown < 0, otherwise, decided),
        )

    def __call__(
        self, score: Tensor, maps: Tensor, shown: Tensor, sizes: Sequence[tuple[int, int]]
    ) -> list[Inspection]:
        """Decide about photographs of some sizes by their scores, maps (B, H, W) and products."""
        score, shown = score.cpu(), shown.cpu()  # Apple's GPUs have no float64
        p_values, decisions = self.verdict(score, shown)
        each = (score, p_values, decisions, shown)
        columns = zip(*(x.tolist() for x in each), maps.cpu().numpy(), sizes, strict=True)
        return [self._inspection(*column) for column in columns]

    def _inspection(
        self,
        score: float,
        p_value: float,
        decision: int,
        product: int,
        anomaly_map: NDArray[np.float32],
        size: tuple[int, int],
    ) -> Inspection:
        name = DECISIONS[decision]
        category = self._products.names[product] if product >= 0 else None
        threshold = self._thresholds.get(product)
        if threshold is None:
            return Inspection(name, category, score, None, None, anomaly_map, [], size)
        regions = find_regions(anomaly_map, threshold.peak, size) if name == "defect" else []
        return Inspection(name, category, score, p_value, threshold, anomaly_map, regions, size)
