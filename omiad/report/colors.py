"""The colour scale of all maps: from dark to bright, so that colour-blind readers can order it."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

NUM_STOPS = 11
"""Colours of the legend, between which a browser interpolates."""


def heat(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colour values in [0, 1] (H, W) as RGB (H, W, 3); values outside are clipped."""
    return np.asarray(colormaps["inferno"](np.clip(values, 0, 1), bytes=True)[..., :3])


def heat_stops() -> list[tuple[float, str]]:
    """Return positions in [0, 1] with the CSS colour at each."""
    positions = np.linspace(0, 1, NUM_STOPS)
    colours = heat(positions[None])[0].tolist()
    return [
        (float(position), f"rgb({red} {green} {blue})")
        for position, (red, green, blue) in zip(positions, colours, strict=True)
    ]
