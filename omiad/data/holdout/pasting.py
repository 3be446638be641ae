"""Artificial defects on real photographs, for choosing settings without looking at real defects.

Each function changes a photograph (H, W, 3), RGB in 0..255, inside a shape (H, W) of opacities in
0..1. The kinds imitate what defects do to a product, not the defects of any data set: misplaced
material is CutPaste (Li et al. 2021), foreign texture DRAEM (Zavrtanik et al. 2021). They range
from barely visible to half of the image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from omiad.data.layouts.synthetic.scenes import edge, turned

Picture = NDArray[np.float32]


class Canvas(NamedTuple):
    """The material of a defect."""

    picture: Picture  # the normal photograph (H, W, 3)
    other: Picture  # another normal photograph (H, W, 3), of any product
    shape: NDArray[np.float32]  # opacity of a blot (H, W)
    foreground: NDArray[np.bool_]  # pixels of the product (H, W)
    rng: np.random.Generator

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return int(max(self.shape.shape))


def misplaced(canvas: Canvas) -> Picture:
    """Paste material of the product where it does not belong, flipped, darker or brighter."""
    height, width = canvas.shape.shape
    shift = canvas.rng.integers([height // 8, width // 8], [7 * height // 8, 7 * width // 8])
    moved = np.roll(canvas.picture, tuple(shift), axis=(0, 1))
    down, right = canvas.rng.choice([-1, 1], 2)
    return _mix(canvas, moved[::down, ::right] * np.float32(canvas.rng.uniform(0.8, 1.2)))


def foreign(canvas: Canvas) -> Picture:
    """Cover the blot with the texture of another photograph."""
    return _mix(canvas, canvas.other, canvas.rng.uniform(0.5, 1.0))


def spot(canvas: Canvas) -> Picture:
    """Darken or lighten the blot, with a tint."""
    strength = canvas.rng.uniform(40, 110) * canvas.rng.choice([-1, 1])
    tint = strength + canvas.rng.uniform(-25, 25, 3)
    return _mix(canvas, canvas.picture + tint.astype(np.float32))


def shaded(canvas: Canvas) -> Picture:
    """Darken or lighten the blot softly, like uneven material or coating."""
    soft = ndimage.gaussian_filter(canvas.shape, 0.03 * canvas.side)
    strength = canvas.rng.uniform(20, 60) * canvas.rng.choice([-1, 1])
    return np.asarray(canvas.picture + np.float32(strength) * soft[..., None])


def broken(canvas: Canvas) -> Picture:
    """Break a piece off along a ragged line; the background is black if the product fills it."""
    y, x = np.indices(canvas.shape.shape) / canvas.side
    depth, along = turned(x, y, canvas.rng.uniform(0, 2 * np.pi))
    for waves in (7, 17, 41):
        phase = canvas.rng.uniform(0, 2 * np.pi)
        depth = depth + 0.06 / waves * np.sin(2 * np.pi * waves * along + phase)
    border = np.quantile(depth[canvas.foreground], canvas.rng.uniform(0.65, 0.97))
    off = edge((border - depth) * canvas.side, 1) * canvas.foreground
    rest = canvas.picture[~canvas.foreground]
    behind = np.median(rest, axis=0) if len(rest) else np.zeros(3, np.float32)
    return _mix(canvas._replace(shape=off.astype(np.float32)), behind)


def missing(canvas: Canvas) -> Picture:
    """Blur the detail away, so that the blot has the colour of its surroundings."""
    reach = 0.06 * canvas.side
    return _mix(canvas, ndimage.gaussian_filter(canvas.picture, (reach, reach, 0)))


def distorted(canvas: Canvas) -> Picture:
    """Move the material of the blot aside."""
    inside = ndimage.gaussian_filter(canvas.shape, 0.01 * canvas.side)
    pull, angle = canvas.rng.uniform(0.04, 0.1) * canvas.side, canvas.rng.uniform(0, 2 * np.pi)
    y, x = np.indices(canvas.shape.shape, np.float32)
    where = y + pull * np.sin(angle) * inside, x + pull * np.cos(angle) * inside
    channels = np.moveaxis(canvas.picture, -1, 0)
    pulled = [ndimage.map_coordinates(c, where, order=1, mode="nearest") for c in channels]
    return np.stack(pulled, axis=-1)


def line(canvas: Canvas) -> Picture:
    """Draw a scratch or crack in place of the blot: bent, thin, and dark or light."""
    rows, columns = np.nonzero(canvas.shape > 0.5)
    y, x = np.indices(canvas.shape.shape)
    y, x = (y - rows.mean()) / canvas.side, (x - columns.mean()) / canvas.side
    along, across = turned(x, y, canvas.rng.uniform(0, np.pi))
    wave = 0.02 * np.sin(along * canvas.rng.uniform(10, 60) + canvas.rng.uniform(0, 2 * np.pi))
    across = across - wave - canvas.rng.uniform(-2, 2) * along**2
    length, thickness = canvas.rng.uniform(0.05, 0.3), canvas.rng.uniform(0.004, 0.015)
    outside = np.maximum(np.abs(across) - thickness / 2, np.abs(along) - length / 2)
    return spot(canvas._replace(shape=edge(outside * canvas.side, 1).astype(np.float32)))


DEFECTS: dict[str, Callable[[Canvas], Picture]] = {
    function.__name__: function
    for function in (broken, distorted, foreign, line, misplaced, missing, shaded, spot)
}
"""The kinds of artificial defects."""


DIAMETERS = (0.03, 0.6)
"""Smallest and largest diameter of a blot, as shares of the longer side."""

SMALL = (0.012, 0.15)
"""The same of a small blot."""


def blot(
    foreground: NDArray[np.bool_],
    rng: np.random.Generator,
    diameters: tuple[float, float] = DIAMETERS,
) -> NDArray[np.float32]:
    """Draw a ragged blot on the product: opacities (H, W), with an edge about one pixel wide.

    The diameter is log-uniform. `foreground` (H, W) marks the pixels of the product.
    """
    side = max(foreground.shape)
    rows, columns = np.nonzero(foreground)
    centre = rng.integers(len(rows))
    radius = 0.5 * np.exp(rng.uniform(*np.log(diameters)))
    aspect = np.exp(rng.uniform(-0.7, 0.7))
    y, x = np.indices(foreground.shape)
    y, x = (y - rows[centre]) / side, (x - columns[centre]) / side
    u, v = turned(x, y, rng.uniform(0, np.pi))
    angle = np.arctan2(v, u)
    ragged = sum(
        rng.uniform(0, 0.5 / k) * np.sin(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 7)
    )
    distance = np.hypot(u * aspect, v / aspect) - radius * (1 + ragged)
    return edge(distance * side, 1).astype(np.float32)


def find_foreground(picture: Picture) -> NDArray[np.bool_]:
    """Estimate the pixels of the product (H, W): those unlike the colour of the image's border.

    If these are less than 10 % or more than 90 % of the image, the product fills the image.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    background = np.median(border, axis=0)
    spread = np.abs(border - background).max(axis=1)
    differs = np.abs(picture - background).max(axis=2) > max(30.0, float(np.quantile(spread, 0.9)))
    filled = ndimage.binary_fill_holes(ndimage.binary_opening(differs, iterations=2))
    return np.asarray(filled if 0.1 < filled.mean() < 0.9 else np.ones_like(filled))


def _mix(canvas: Canvas, above: Picture, opacity: float = 1.0) -> Picture:
    return canvas.picture + (above - canvas.picture) * (opacity * canvas.shape)[..., None]
