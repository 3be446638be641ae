"""How published tables prepare maps, masks and image scores: three presets and their steps."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.regions import pixel_labels
from omiad.scoring import gaussian_blur, highest_window


@dataclass(frozen=True)
class Protocol:
    """The steps between the maps of a method and the figures.

    Attributes:
        name: The preset that these steps come from.
        input_size: Side in pixels to which images and masks are resized.
        map_size: Side at which maps and masks are compared.
        estimators: How the figures of the source differ from exact ones; for the record.
        crop: Side of the centre that is cut out of images and masks; None keeps all.
        mask_resize: How masks are resized.
        mask_threshold: Part of white above which a resized mask pixel is defective.
        blur_sigma: Standard deviation of the Gaussian that blurs maps, in pixels; 0 is no blur.
        blur_kernel: Side of a kernel that pads with zeros; None cuts at 4 sigma and reflects.
        pool_size: Side of the window whose highest mean is the image score; 1 is the maximum.
        top_fraction: Share of pixels whose mean is the image score instead; 0 turns that off.
        upsampling: How the code of the method turns its grid into maps; for the record.
    """

    name: str
    input_size: int
    map_size: int
    estimators: str
    crop: int | None = None
    mask_resize: Literal["nearest", "bilinear"] = "bilinear"
    mask_threshold: float = 0.0
    blur_sigma: float = 0.0
    blur_kernel: int | None = None
    pool_size: int = 1
    top_fraction: float = 0.0
    upsampling: str = "bilinear, corners aligned"

    def __post_init__(self) -> None:
        """Refuse fields that are out of their range."""
        if min(self.input_size, self.map_size, self.pool_size) < 1:
            raise InputError(
                f"A protocol needs sizes of at least 1, but got input_size {self.input_size}, "
                f"map_size {self.map_size}, pool_size {self.pool_size}."
            )
        if self.crop is not None and not 1 <= self.crop <= self.input_size:
            raise InputError(
                f"crop must lie in [1, {self.input_size}], the input size, but got {self.crop}."
            )
        if not (math.isfinite(self.blur_sigma) and self.blur_sigma >= 0):
            raise InputError(f"blur_sigma must be finite and not negative, got {self.blur_sigma}.")
        if not 0 <= self.top_fraction <= 1:
            raise InputError(f"top_fraction must lie in [0, 1], but got {self.top_fraction}.")
        if self.pool_size > self.map_size:
            raise InputError(
                f"pool_size {self.pool_size} is larger than the maps of {self.map_size} pixels. "
                f"Lower --pool_size."
            )

    @property
    def given_size(self) -> int:
        """Side of the maps that the protocol takes."""
        return self.crop or self.input_size

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the preset."""
        preset = vars(PROTOCOLS[self.name])
        return {key: value for key, value in vars(self).items() if value != preset[key]}

    @property
    def steps(self) -> dict[str, str]:
        """Each step in words, to print and to store."""
        size, side = self.input_size, self.map_size
        limit = "0" if self.mask_threshold == 0 else f"{self.mask_threshold:g} of white"
        kernel = self.blur_kernel
        edges = "edges reflected" if kernel is None else f"{kernel} x {kernel}"
        window, score = self.pool_size, "highest pixel"
        if self.top_fraction:
            score = f"mean of the highest {100 * self.top_fraction:g} % of pixels"
        elif window > 1:
            score = f"highest mean over {window} x {window} pixels"
        return {
            "input resize": f"{size} x {size}, bilinear",
            "mask resize": f"{size} x {size}, {self.mask_resize}, defective above {limit}",
            "crop": f"centre {self.crop} x {self.crop}" if self.crop else "none",
            "upsampling": self.upsampling,
            "compared at": f"{side} x {side}"
            + ("" if side == self.given_size else " (maps bilinear, masks nearest)"),
            "blur": f"Gaussian, sigma {self.blur_sigma:g}, {edges}" if self.blur_sigma else "none",
            "image score": score,
        }

    @property
    def sentence(self) -> str:
        """Name and steps in one sentence."""
        steps = "; ".join(f"{name}: {step}" for name, step in self.steps.items())
        return (
            f"protocol {self.name}{' (changed)' if self.changes else ''}: {steps}; "
            f"the source's own estimators (--estimator source): {self.estimators}"
        )

    def as_record(self) -> dict[str, Any]:
        """Return name, steps and changes as plain data, for results.json."""
        return {
            "protocol": self.name,
            "protocol_steps": self.steps,
            "protocol_changes": self.changes,
        }

    def prepare_map(self, anomaly_map: Tensor) -> Tensor:
        """Bring maps to (B, map_size, map_size), float32, blurred; see `as_given`."""
        maps = self.as_given(anomaly_map.float())
        if self.map_size != self.given_size:
            size = (self.map_size, self.map_size)
            maps = F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        if self.blur_kernel is None:
            return gaussian_blur(maps, self.blur_sigma, edges="reflect")
        return gaussian_blur(maps, self.blur_sigma, edges="zero", radius=self.blur_kernel // 2)

    def as_given(self, anomaly_map: Tensor) -> Tensor:
        """Bring maps (B, H, W) of another shape, such as a canvas of tiles, to `given_size`."""
        size = (self.given_size, self.given_size)
        if anomaly_map.shape[1:] == size:
            return anomaly_map
        return F.interpolate(anomaly_map[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    def prepare_mask(self, mask: NDArray[np.bool_]) -> Tensor:
        """Bring a mask (H, W) to (map_size, map_size), bool."""
        white = Image.fromarray(mask.astype(np.uint8) * 255)
        resampling = Image.Resampling[self.mask_resize.upper()]
        pixels = np.array(white.resize((self.input_size, self.input_size), resampling))
        if self.crop is not None:
            start = round((self.input_size - self.crop) / 2)
            pixels = pixels[start : start + self.crop, start : start + self.crop]
        grey = torch.from_numpy(pixels).float() / 255
        if self.map_size != self.given_size:
            grey = F.interpolate(grey[None, None], (self.map_size, self.map_size))[0, 0]
        return grey > self.mask_threshold

    def label_mask(self, mask: NDArray[np.bool_]) -> tuple[Tensor, int]:
        """Label the pixels of a mask (H, W), and count the regions that vanish from it.

        See `pixel_labels`. The sources of the protocols count the pixels of such regions as normal.
        """
        return pixel_labels(mask, self.prepare_mask(mask), self._place)

    def _place(self, points: NDArray[np.floating[Any]], length: int) -> NDArray[np.int64]:
        """Return where points of an axis of a photograph lie in its mask after `prepare_mask`."""
        placed = points / length * self.input_size
        if self.crop is not None:
            placed -= round((self.input_size - self.crop) / 2)
        return np.floor(placed * (self.map_size / self.given_size)).astype(np.int64)

    def image_score(self, anomaly_map: Tensor) -> Tensor:
        """Return the scores (B,) of prepared maps (B, H, W)."""
        if self.top_fraction:
            pixels = anomaly_map.flatten(1)
            count = max(1, int(pixels.shape[1] * self.top_fraction))
            return pixels.topk(count, dim=1).values.mean(1)
        return highest_window(anomaly_map, self.pool_size)


UNIAD = Protocol(
    name="uniad",
    input_size=224,
    map_size=224,
    mask_resize="nearest",
    pool_size=16,
    estimators="no pixel AP, F1-max and AU-PRO",
)
"""UniAD (utils/eval_helper.py, datasets/base_dataset.py), which the paper follows."""

ADER = Protocol(
    name="ader",
    input_size=256,
    map_size=256,
    mask_threshold=0.5,
    blur_sigma=4.0,
    estimators="50 bins, AP as a trapezoid, F1-max over 21 thresholds",
)
"""ADer (util/metric.py). Its blur and window vary by model: none and 16 for UniAD."""

DINOMALY = Protocol(
    name="dinomaly",
    input_size=448,
    crop=392,
    map_size=256,
    blur_sigma=4.0,
    blur_kernel=5,
    top_fraction=0.01,
    estimators="AU-PRO over 200 thresholds, divided by the last rate below 0.3",
)
"""Dinomaly (utils.py, evaluation_batch; dataset.py)."""

PROTOCOLS = {protocol.name: protocol for protocol in (UNIAD, ADER, DINOMALY)}
