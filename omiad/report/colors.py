"""A colour map from dark to bright that colour-blind readers can order."""

import numpy as np
from numpy.typing import NDArray

# Lightness rises evenly from black through violet, red and orange to pale yellow.
_STOPS = np.array(
    [
        [2, 2, 8],
        [26, 11, 62],
        [66, 10, 104],
        [106, 23, 110],
        [147, 38, 103],
        [187, 55, 84],
        [221, 81, 58],
        [243, 120, 25],
        [252, 165, 10],
        [246, 215, 70],
        [252, 255, 164],
    ],
    dtype=np.float64,
)


def heat(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colour values in [0, 1] (H, W) as RGB (H, W, 3); what lies outside is clipped."""
    position = np.clip(values, 0, 1) * (len(_STOPS) - 1)
    stops = np.arange(len(_STOPS))
    channels = [np.interp(position, stops, _STOPS[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_stops() -> list[tuple[float, tuple[int, int, int]]]:
    """Return positions in [0, 1] and the colour at each, between which colours are interpolated."""
    last = len(_STOPS) - 1
    return [
        (i / last, (int(red), int(green), int(blue))) for i, (red, green, blue) in enumerate(_STOPS)
    ]
