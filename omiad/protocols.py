"""How published tables prepare maps, masks and image scores: presets, and what each step does."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.scoring import highest_window

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True)
class Protocol:
    """The steps between a method's maps and the figures.

    Attributes:
        name: The preset these steps come from.
        input_size: Side in pixels that images and masks are resized to.
        crop: Side of the centre that is cut out of them, None for all.
        mask_resize: How masks are resized.
        mask_threshold: Part of white above which a resized mask pixel is defective.
        map_size: Side at which maps and masks are compared.
        blur_sigma: Standard deviation of the Gaussian that blurs maps, in pixels; 0 is none.
        blur_kernel: Side of a kernel that pads with zeros; None cuts at 4 sigma and reflects.
        pool_size: Side of the window whose highest mean is the image score; 1 is the maximum.
        top_fraction: Share of pixels whose mean is the image score instead; 0 is not used.
        estimators: How the source's own figures differ from exact ones; for the record.
        upsampling: How the method's own code makes maps of its grid; for the record.
    """

    name: str
    input_size: int
    crop: int | None
    mask_resize: Literal["nearest", "bilinear"]
    mask_threshold: float
    map_size: int
    blur_sigma: float
    blur_kernel: int | None
    pool_size: int
    top_fraction: float
    estimators: str
    upsampling: str = "bilinear, corners aligned"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: If a field is out of its range.
        """
        if min(self.input_size, self.map_size, self.pool_size) < 1:
            raise InputError(
                f"A protocol needs sizes of at least 1, but got input_size {self.input_size}, "
                f"map_size {self.map_size}, pool_size {self.pool_size}."
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
        """Side of the maps that a method hands in."""
        return self.crop or self.input_size

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the preset's."""
        preset = dataclasses.asdict(PROTOCOLS[self.name])
        mine = dataclasses.asdict(self)
        return {key: value for key, value in mine.items() if value != preset[key]}

    @property
    def steps(self) -> dict[str, str]:
        """What is done, step by step, as sentences to print and to store."""
        size, side = self.input_size, self.map_size
        limit = "0" if self.mask_threshold == 0 else f"{self.mask_threshold:g} of white"
        if self.blur_sigma == 0:
            blur = "none"
        elif self.blur_kernel is None:
            blur = f"Gaussian, sigma {self.blur_sigma:g}, edges reflected"
        else:
            blur = f"Gaussian, sigma {self.blur_sigma:g}, {self.blur_kernel} x {self.blur_kernel}"
        if self.top_fraction:
            score = f"mean of the highest {100 * self.top_fraction:g} % of pixels"
        elif self.pool_size > 1:
            score = f"highest mean over {self.pool_size} x {self.pool_size} pixels"
        else:
            score = "highest pixel"
        return {
            "input resize": f"{size} x {size}, bilinear",
            "mask resize": f"{size} x {size}, {self.mask_resize}, defective above {limit}",
            "crop": f"centre {self.crop} x {self.crop}" if self.crop else "none",
            "upsampling": self.upsampling,
            "compared at": f"{side} x {side}"
            + ("" if side == self.given_size else " (maps bilinear, masks nearest)"),
            "blur": blur,
            "image score": score,
        }

    @property
    def sentence(self) -> str:
        """Name and steps in one line."""
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
        """Bring maps (B, given_size, given_size) to (B, map_size, map_size), float32, blurred."""
        maps = anomaly_map.float()[:, None]
        if self.map_size != self.given_size:
            size = (self.map_size, self.map_size)
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
        if self.blur_sigma > 0:
            maps = self._blur(maps)
        return maps[:, 0]

    def prepare_mask(self, mask: NDArray[np.bool_]) -> Tensor:
        """Bring a mask (H, W) to (map_size, map_size), bool."""
        white = Image.fromarray(mask.astype(np.uint8) * 255)
        size = (self.input_size, self.input_size)
        pixels = np.array(white.resize(size, _RESAMPLING[self.mask_resize]))
        if self.crop is not None:
            start = round((self.input_size - self.crop) / 2)
            pixels = pixels[start : start + self.crop, start : start + self.crop]
        grey = torch.from_numpy(pixels).float() / 255
        if self.map_size != self.given_size:
            grey = F.interpolate(grey[None, None], (self.map_size, self.map_size))[0, 0]
        return grey > self.mask_threshold

    def image_score(self, anomaly_map: Tensor) -> Tensor:
        """Return the scores (B,) of prepared maps (B, H, W)."""
        if self.top_fraction:
            pixels = anomaly_map.flatten(1)
            count = max(1, int(pixels.shape[1] * self.top_fraction))
            return pixels.topk(count, dim=1).values.mean(1)
        return highest_window(anomaly_map, self.pool_size)

    def _blur(self, maps: Tensor) -> Tensor:
        if self.blur_kernel is None:
            sigmas = (0, 0, self.blur_sigma, self.blur_sigma)
            return torch.from_numpy(ndimage.gaussian_filter(maps.numpy(), sigmas))
        radius = self.blur_kernel // 2
        offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype)
        line = torch.exp(-0.5 * (offsets / self.blur_sigma) ** 2)
        kernel = torch.outer(line, line) / line.sum() ** 2
        return F.conv2d(maps, kernel[None, None], padding=radius)


UNIAD = Protocol(
    name="uniad",
    input_size=224,
    crop=None,
    mask_resize="nearest",
    mask_threshold=0.0,
    map_size=224,
    blur_sigma=0.0,
    blur_kernel=None,
    pool_size=16,
    top_fraction=0.0,
    estimators="no pixel AP, F1-max and AU-PRO",
)
"""UniAD (utils/eval_helper.py, datasets/base_dataset.py), the paper's lineage."""

ADER = Protocol(
    name="ader",
    input_size=256,
    crop=None,
    mask_resize="bilinear",
    mask_threshold=0.5,
    map_size=256,
    blur_sigma=4.0,
    blur_kernel=None,
    pool_size=1,
    top_fraction=0.0,
    estimators="50 bins, AP as a trapezoid, F1-max over 21 thresholds",
)
"""ADer (util/metric.py): blur and pooling vary by model there, e.g. none and 16 for UniAD."""

DINOMALY = Protocol(
    name="dinomaly",
    input_size=448,
    crop=392,
    mask_resize="bilinear",
    mask_threshold=0.0,
    map_size=256,
    blur_sigma=4.0,
    blur_kernel=5,
    pool_size=1,
    top_fraction=0.01,
    estimators="AU-PRO over 200 thresholds, divided by the last rate below 0.3",
)
"""Dinomaly (utils.py, evaluation_batch; dataset.py)."""

PROTOCOLS = {protocol.name: protocol for protocol in (UNIAD, ADER, DINOMALY)}


def find_protocol(
    name: str,
    *,
    image_size: int | None = None,
    blur_sigma: float | None = None,
    pool_size: int | None = None,
    top_fraction: float | None = None,
) -> Protocol:
    """Return a preset with some of its steps changed.

    Args:
        name: uniad, ader or dinomaly.
        image_size: Side of maps and masks, without crop; None keeps the preset's.
        blur_sigma: Blur of the maps; None keeps the preset's.
        pool_size: Window of the image score; None keeps the preset's.
        top_fraction: Share of pixels of the image score; None keeps the preset's.

    Raises:
        InputError: If there is no such preset or a step is impossible.
    """
    if name not in PROTOCOLS:
        raise InputError(f"No protocol '{name}'. Choose one of {', '.join(PROTOCOLS)}.")
    if pool_size is not None and top_fraction:
        raise InputError(
            f"Both pool_size {pool_size} and top_fraction {top_fraction:g} would make the image "
            f"score. Give one of --pool_size and --top_fraction."
        )
    changes: dict[str, Any] = {
        "blur_sigma": blur_sigma,
        "pool_size": pool_size,
        "top_fraction": top_fraction,
    }
    if image_size is not None:
        changes |= {"input_size": image_size, "map_size": image_size}
    protocol = PROTOCOLS[name]
    kept = {key: value for key, value in changes.items() if value is not None}
    if image_size is not None and protocol.crop is not None:
        kept["crop"] = None
    if pool_size is not None and top_fraction is None:
        kept["top_fraction"] = 0.0
    return dataclasses.replace(protocol, **kept)
