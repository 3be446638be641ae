"""Defects: functions that change a scene."""

from collections.abc import Callable

import numpy as np

from omiad.data.layouts.synthetic.scenes import Grid, Scene, blend, edge, smooth_noise, turned

Defect = Callable[[Scene, np.random.Generator], Scene]


def _place(rng: np.random.Generator, reach: float = 0.5) -> tuple[float, float]:
    """Draw a position on the object."""
    angle, radius = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
    return radius * np.cos(angle), radius * np.sin(angle)


def scratch(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draw a bent line of bare material, lighter than the scene."""
    cx, cy = _place(rng, 0.35)
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.3, 0.5)
    bend, width = rng.uniform(-0.5, 0.5), rng.uniform(0.045, 0.065)

    def scratched(x: Grid, y: Grid) -> Grid:
        along, across = turned(x - cx, y - cy, angle)
        outside = np.maximum(np.abs(across - bend * along**2) - width, np.abs(along) - length)
        below = scene(x, y)
        return blend(below, below * 0.4 + 0.42, edge(outside))

    return scratched


def stain(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draw a blot of ink."""
    cx, cy = _place(rng)
    size = rng.uniform(0.2, 0.32)
    outline = rng.integers(2**31)
    ink = np.array([0.26, 0.27, 0.46])

    def stained(x: Grid, y: Grid) -> Grid:
        ragged = 0.09 * smooth_noise(x, y, np.random.default_rng(outline), 20)
        below = scene(x, y)
        opacity = 0.8 * edge(np.hypot(x - cx, y - cy) - size + ragged, 0.05)
        return blend(below, ink, opacity)

    return stained


def distortion(scene: Scene, rng: np.random.Generator) -> Scene:
    """Turn material about a point, like a pulled thread or a displaced stone."""
    cx, cy = _place(rng)
    size, turn = rng.uniform(0.32, 0.42), rng.choice([-1, 1]) * rng.uniform(0.9, 1.4)

    def distorted(x: Grid, y: Grid) -> Grid:
        dx, dy = x - cx, y - cy
        dx, dy = turned(dx, dy, -turn * np.clip(1 - (dx**2 + dy**2) / size**2, 0, 1))
        return scene(cx + dx, cy + dy)

    return distorted


def foreign(scene: Scene, rng: np.random.Generator) -> Scene:
    """Put a scrap of yellow and black tape on the product."""
    cx, cy = _place(rng)
    half_x, half_y = rng.uniform(0.18, 0.28, 2)
    angle = rng.uniform(0, np.pi)
    yellow, black = np.array([0.66, 0.58, 0.32]), np.array([0.26, 0.25, 0.24])

    def covered(x: Grid, y: Grid) -> Grid:
        u, v = turned(x - cx, y - cy, angle)
        tape = blend(yellow, black, edge(0.07 * np.sin((u + v) * 28), 0.03))
        return blend(scene(x, y), tape, edge(np.maximum(np.abs(u) - half_x, np.abs(v) - half_y)))

    return covered


def broken_tooth(scene: Scene, rng: np.random.Generator) -> Scene:
    """Break a piece off the rim of the gear."""
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.26)
    cx, cy = 0.68 * np.cos(angle), 0.68 * np.sin(angle)
    felt = 0.2 * np.array([0.8, 1.0, 1.25])

    def broken(x: Grid, y: Grid) -> Grid:
        return blend(scene(x, y), felt, edge(np.hypot(x - cx, y - cy) - size))

    return broken


DEFECTS: dict[str, dict[str, Defect]] = {
    "board": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "bricks": {"distortion": distortion, "foreign": foreign, "stain": stain},
    "fabric": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "gear": {"broken_tooth": broken_tooth, "foreign": foreign, "stain": stain},
}
"""The defects of each category."""
