"""Overlays at the size of the photograph, in bounded memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omiad.report.panels import overlay
from omiad.report.pictures import Map, Pixels

_COLOUR = (0, 229, 255)
"""Colour of an outline, which neither heat nor most photographs have."""

_AT_ONCE = 2**20
"""Pixels that are drawn at once, since each takes about 100 bytes meanwhile."""


def marked(
    pixels: Pixels, anomaly_map: Map, scale: Sequence[float], *, mask: NDArray[np.bool_]
) -> Image.Image:
    """Lay a map (S, S) over a photograph (H, W, 3), and outline its defects.

    Args:
        pixels: The photograph at its own size, uint8.
        anomaly_map: Pixel scores at the model's size, float32.
        scale: Scores of the darkest and of the brightest colour.
        mask: Defective pixels (H, W).
    """
    height, width = mask.shape
    full = Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
    values, edge = np.asarray(full), outline(mask, max(1, round(max(mask.shape) / 300)))
    drawn = np.empty_like(pixels)
    rows = max(1, _AT_ONCE // width)
    for top in range(0, height, rows):
        part = slice(top, top + rows)
        drawn[part] = np.asarray(overlay(pixels[part], values[part], scale))
    drawn[edge] = _COLOUR
    return Image.fromarray(drawn)


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask (H, W) that are at most so many pixels from its edge."""
    padded = np.pad(mask, width)
    middle, most = slice(width, -width), 2 * width
    inside = padded[most:, middle] & padded[:-most, middle]
    inside &= padded[middle, most:] & padded[middle, :-most]
    return mask & ~inside
