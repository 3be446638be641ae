"""Defects: each draws a scene at the positions x, y (H, W) with something wrong, (H, W, 3)."""

from collections.abc import Callable

import numpy as np

from omiad.data.layouts.synthetic.scenes import FELT, Grid, Scene, blend, edge, smooth_noise, turned

Defect = Callable[[Scene, Grid, Grid, np.random.Generator], Grid]


def _place(rng: np.random.Generator, reach: float = 0.5) -> tuple[float, float]:
    """Draw a position on the object."""
    angle, radius = rng.uniform(0, 2 * np.pi), reach * np.sqrt(rng.uniform())
    return radius * np.cos(angle), radius * np.sin(angle)


def scratch(scene: Scene, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Draw a bent line of bare material, lighter than the scene."""
    cx, cy = _place(rng, 0.35)
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.3, 0.5)
    bend, width = rng.uniform(-0.5, 0.5), rng.uniform(0.045, 0.065)
    along, across = turned(x - cx, y - cy, angle)
    outside = np.maximum(np.abs(across - bend * along**2) - width, np.abs(along) - length)
    below = scene(x, y)
    return blend(below, below * 0.4 + 0.42, edge(outside))


def stain(scene: Scene, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Draw a blot of ink."""
    cx, cy = _place(rng)
    size = rng.uniform(0.2, 0.32)
    ragged = 0.09 * smooth_noise(x, y, np.random.default_rng(rng.integers(2**31)), 20)
    opacity = 0.8 * edge(np.hypot(x - cx, y - cy) - size + ragged, 0.05)
    return blend(scene(x, y), np.array([0.26, 0.27, 0.46]), opacity)


def distortion(scene: Scene, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Turn material about a point, like a pulled thread or a displaced stone."""
    cx, cy = _place(rng)
    size, turn = rng.uniform(0.32, 0.42), rng.choice([-1, 1]) * rng.uniform(0.9, 1.4)
    dx, dy = x - cx, y - cy
    dx, dy = turned(dx, dy, -turn * np.clip(1 - (dx**2 + dy**2) / size**2, 0, 1))
    return scene(cx + dx, cy + dy)


def foreign(scene: Scene, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Put a scrap of yellow and black tape on the product."""
    cx, cy = _place(rng)
    half_x, half_y = rng.uniform(0.18, 0.28, 2)
    yellow, black = np.array([0.66, 0.58, 0.32]), np.array([0.26, 0.25, 0.24])
    u, v = turned(x - cx, y - cy, rng.uniform(0, np.pi))
    tape = blend(yellow, black, edge(0.07 * np.sin((u + v) * 28), 0.03))
    return blend(scene(x, y), tape, edge(np.maximum(np.abs(u) - half_x, np.abs(v) - half_y)))


def broken_tooth(scene: Scene, x: Grid, y: Grid, rng: np.random.Generator) -> Grid:
    """Break a piece off the rim of the gear."""
    angle, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.26)
    to_centre = np.hypot(x - 0.68 * np.cos(angle), y - 0.68 * np.sin(angle))
    return blend(scene(x, y), 0.2 * FELT, edge(to_centre - size))


DEFECTS: dict[str, dict[str, Defect]] = {
    "board": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "bricks": {"distortion": distortion, "foreign": foreign, "stain": stain},
    "fabric": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "gear": {"broken_tooth": broken_tooth, "foreign": foreign, "stain": stain},
}
"""The defects of each category."""
