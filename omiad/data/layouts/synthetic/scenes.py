"""The scenes of the synthetic categories, and their defects.

A scene maps positions x, y (H, W), about -1 to 1 across the image, to RGB (H, W, 3) in 0..1. A
defect maps them to the picture of a scene with something wrong.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Grid = NDArray[np.float64]
Scene = Callable[[Grid, Grid], Grid]
Defect = Callable[[Scene, Grid, Grid, np.random.Generator], Grid]

FELT = np.array([0.8, 1.0, 1.25])  # colour of the ground under the gear, times its brightness


def edge(distance: Grid, width: float = 0.015) -> Grid:
    """Return 1 where a signed distance is negative and 0 where it is positive, with a soft edge."""
    return np.asarray(np.clip(0.5 - distance / width, 0, 1))


def blend(below: Grid, above: Grid, opacity: Grid) -> Grid:
    """Lay a colour or picture (H, W, 3) or (3,) over another with an opacity (H, W)."""
    return below + (above - below) * opacity[..., None]


def turned(x: Grid, y: Grid, angle: float | Grid) -> tuple[Grid, Grid]:
    """Return positions in axes that are turned by an angle in radians."""
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def smooth_noise(x: Grid, y: Grid, rng: np.random.Generator, cells: int = 12) -> Grid:
    """Return smooth noise (H, W) in -1..1 that depends only on the positions."""
    values = rng.uniform(-1, 1, (cells, cells))
    where = np.stack([(y + 1.5) / 3 * (cells - 1), (x + 1.5) / 3 * (cells - 1)])
    return np.asarray(ndimage.map_coordinates(values, where, order=1, mode="mirror"), np.float64)


def fabric(rng: np.random.Generator) -> Scene:
    """Return a plain weave of two yarns; its phase varies."""
    phase_x, phase_y = rng.uniform(0, 2, 2)
    warp, weft = np.array([0.50, 0.56, 0.66]), np.array([0.72, 0.70, 0.62])

    def scene(x: Grid, y: Grid) -> Grid:
        u, v = 4 * x + phase_x, 4 * y + phase_y
        over = (np.floor(u) + np.floor(v)) % 2 < 1
        across_warp, across_weft = np.sin(np.pi * (u % 1)), np.sin(np.pi * (v % 1))
        shade = 0.45 + 0.55 * np.where(over, across_warp, across_weft)
        return np.asarray(np.where(over[..., None], warp, weft) * shade[..., None])

    return scene


def bricks(rng: np.random.Generator) -> Scene:
    """Return staggered clay bricks with light joints; phase, tint and grain vary."""
    phase, tints = rng.uniform(0, 2, 2), rng.uniform(0.93, 1.05, (16, 16))
    grain_seed = int(rng.integers(2**31))
    clay, joint = np.array([0.66, 0.36, 0.27]), np.array([0.70, 0.68, 0.63])

    def scene(x: Grid, y: Grid) -> Grid:
        row = 3 * y + phase[1]
        column = 1.5 * x + phase[0] + 0.5 * (np.floor(row) % 2)
        u, v = row % 1, column % 1
        tint = tints[np.floor(row).astype(int) % 16, np.floor(column).astype(int) % 16]
        grain = 1 + 0.04 * smooth_noise(x, y, np.random.default_rng(grain_seed), 64)
        to_joint = np.minimum(np.minimum(u, 1 - u) / 3, np.minimum(v, 1 - v) / 1.5)
        return blend(clay * (tint * grain)[..., None], joint, edge(to_joint - 0.03))

    return scene


def gear(rng: np.random.Generator) -> Scene:
    """Return a toothed steel wheel with five holes on felt, turned by up to 13 degrees."""
    turn, felt_seed = rng.uniform(-0.22, 0.22), int(rng.integers(2**31))
    steel, hub = np.array([0.66, 0.68, 0.71]), np.array([0.80, 0.68, 0.40])

    def scene(x: Grid, y: Grid) -> Grid:
        radius, angle = np.hypot(x, y), np.arctan2(y, x) + turn
        felt = 0.20 + 0.015 * smooth_noise(x, y, np.random.default_rng(felt_seed), 48)
        ground = felt[..., None] * FELT
        rim = 0.66 + 0.09 * np.tanh(4 * np.sin(14 * angle))
        brushed = 0.9 + 0.1 * np.cos(2 * angle - 2 * turn)  # the light does not turn with the wheel
        rings = 1 + 0.05 * np.sin(60 * radius)
        out = blend(ground, steel * (brushed * rings)[..., None], edge(radius - rim))
        for k in range(5):
            towards = 2 * np.pi * k / 5 - turn
            hole = np.hypot(x - 0.4 * np.cos(towards), y - 0.4 * np.sin(towards)) - 0.1
            out = blend(out, ground, edge(hole))
        out = blend(out, hub, edge(radius - 0.2))
        return blend(out, np.array([0.1, 0.1, 0.12]), edge(radius - 0.09))

    return scene


def board(rng: np.random.Generator) -> Scene:
    """Return a green circuit board with three chips, pins, pads and traces."""
    mask_green, copper = np.array([0.10, 0.36, 0.20]), np.array([0.20, 0.52, 0.30])
    gold, epoxy = np.array([0.82, 0.70, 0.34]), np.array([0.16, 0.16, 0.18])
    table, gray = np.array([0.55, 0.53, 0.50]), np.array([0.5, 0.5, 0.5])
    # Centres and half sides.
    chips = ((-0.42, -0.38, 0.26, 0.2), (0.38, -0.42, 0.16, 0.28), (0.34, 0.4, 0.3, 0.16))

    def scene(x: Grid, y: Grid) -> Grid:
        out = np.broadcast_to(table, (*x.shape, 3))
        out = blend(out, mask_green, edge(np.maximum(np.abs(x), np.abs(y)) - 0.86))
        for offset in (-0.1, 0.0, 0.1):
            bent = np.abs(y - 0.25 * np.tanh(6 * (x + offset)) - offset) - 0.018
            out = blend(out, copper, edge(np.maximum(bent, np.abs(x) - 0.8)))
        for cx, cy, half_x, half_y in chips:
            to_x, to_y = np.abs(x - cx) - half_x, np.abs(y - cy) - half_y
            stripes = np.abs(((y - cy) / 0.08) % 1 - 0.5) - 0.22
            pins = np.maximum(np.maximum(to_x - 0.05, to_y + 0.02), 0.08 * stripes)
            mark = np.hypot(x - cx + 0.7 * half_x, y - cy + 0.7 * half_y) - 0.025
            out = blend(out, gold, edge(pins))
            out = blend(out, epoxy, edge(np.maximum(to_x, to_y)))
            out = blend(out, gray, edge(mark))
        for k in range(6):
            ring = np.abs(np.hypot(x + 0.7 - 0.16 * k, y - 0.68) - 0.045) - 0.02
            out = blend(out, gold, edge(ring))
        return out

    return scene


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


SCENES = {"board": board, "bricks": bricks, "fabric": fabric, "gear": gear}
TEXTURES = ("bricks", "fabric")  # categories without an object: the texture fills the image
DEFECTS: dict[str, dict[str, Defect]] = {
    "board": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "bricks": {"distortion": distortion, "foreign": foreign, "stain": stain},
    "fabric": {"foreign": foreign, "scratch": scratch, "stain": stain},
    "gear": {"broken_tooth": broken_tooth, "foreign": foreign, "stain": stain},
}
