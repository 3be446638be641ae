"""A small multi-class data set made from a seed, in the MVTec layout.

Two textures and two objects with varying pose, lighting and sensor noise; five kinds of defect
with exact masks: a mask holds the pixels whose colour the defect changed before light and noise.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from omiad.data.layouts.synthetic.defects import DEFECTS as DEFECTS
from omiad.data.layouts.synthetic.defects import Defect
from omiad.data.layouts.synthetic.scenes import SCENES, TEXTURES, Grid
from omiad.errors import InputError
from omiad.types import NORMAL

VISIBLE = 8 / 255
"""Least change of a colour channel that counts as defective."""

_SUPERSAMPLING = 2


def synthesize(
    root: str | Path,
    *,
    num_train: int = 60,
    num_test_good: int = 12,
    num_test_defective: int = 18,
    image_size: int = 128,
    seed: int = 0,
    categories: Sequence[str] = tuple(SCENES),
) -> None:
    """Write a synthetic multi-class data set in the MVTec layout.

    The same seed gives the same files, and an image does not depend on how many others there are.

    Args:
        root: Folder to write to; must be empty or absent.
        num_train: Normal training images of each category.
        num_test_good: Normal test images of each category.
        num_test_defective: Defective test images of each category, spread over its defects.
        image_size: Side in pixels.
        seed: Seed of everything.
        categories: Which to write: board, bricks, fabric, gear.

    Raises:
        InputError: If the folder holds anything, a count is below 1, or a category is unknown.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise InputError(f"'{root}' is not empty. Give a folder that does not exist yet.")
    if min(num_train, num_test_good, num_test_defective) < 1 or image_size < 16:
        raise InputError(
            f"Every count must be at least 1 and image_size at least 16, but got num_train "
            f"{num_train}, num_test_good {num_test_good}, num_test_defective "
            f"{num_test_defective} and image_size {image_size}."
        )
    if unknown := sorted(set(categories) - set(SCENES)):
        raise InputError(f"Unknown categories {unknown}; there are {', '.join(SCENES)}.")
    jobs = [
        (category, folder, defect, i)
        for category in categories
        for folder, defect, count in (
            ("train", None, num_train),
            ("test", None, num_test_good),
            *_shares(category, num_test_defective),
        )
        for i in range(count)
    ]
    for category, split, defect, i in track(jobs, description="synthesize"):
        image, mask = render(category, split, i, defect=defect, image_size=image_size, seed=seed)
        name = f"{i:03}.png"
        _save(image, root / category / split / (defect or NORMAL) / name)
        if defect is not None:
            _save(mask, root / category / "ground_truth" / defect / f"{i:03}_mask.png")


def render(
    category: str, split: str, index: int, *, defect: str | None, image_size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render one image (S, S, 3) and its mask (S, S), 0 or 255.

    Args:
        category: A key of SCENES.
        split: "train" or "test".
        index: Number of the image among those of its split and defect.
        defect: A key of DEFECTS[category], None for a normal image.
        image_size: S in pixels.
        seed: Seed of the data set.
    """
    key = zlib.crc32(f"{category}/{split}/{defect}/{index}".encode())
    rng = np.random.default_rng([seed, key])
    scene = SCENES[category](rng)
    x, y = _pose(category, image_size * _SUPERSAMPLING, rng)
    clean = scene(x, y)
    albedo = clean
    if defect is not None:
        change: Defect = DEFECTS[category][defect]
        albedo = change(scene, rng)(x, y)
    changed = np.abs(_reduce(albedo) - _reduce(clean)).max(axis=-1) > VISIBLE
    pixels = _photograph(_reduce(albedo), rng)
    return pixels, (255 * changed).astype(np.uint8)


def _shares(category: str, count: int) -> list[tuple[str, str, int]]:
    names = list(DEFECTS[category])
    shares = [count // len(names) + (i < count % len(names)) for i in range(len(names))]
    return [("test", name, share) for name, share in zip(names, shares, strict=True)]


def _pose(category: str, size: int, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Return scene positions of all pixels under a random rotation, shift and scale."""
    angle = np.deg2rad(rng.uniform(-8, 8))
    shift = rng.uniform(-0.1, 0.1, 2) * (category not in TEXTURES)
    scale = rng.uniform(0.95, 1.05)
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * scale
    x, y = np.meshgrid(axis + shift[0], axis + shift[1])
    return x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)


def _photograph(albedo: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light the scene from a random side and expose it with sensor noise."""
    size = albedo.shape[0]
    axis = np.linspace(-1, 1, size)
    direction = rng.uniform(0, 2 * np.pi)
    slope = np.cos(direction) * axis[None, :] + np.sin(direction) * axis[:, None]
    light = rng.uniform(0.86, 1.08) * (1 + rng.uniform(0.03, 0.12) * slope)
    warmth = rng.uniform(-0.025, 0.025)
    exposed = albedo * light[..., None] * np.array([1 + warmth, 1, 1 - warmth])
    noisy = exposed + rng.normal(0, 0.012, exposed.shape)
    pixels: NDArray[np.uint8] = (255 * np.clip(noisy, 0, 1)).round().astype(np.uint8)
    return pixels


def _reduce(x: Grid) -> Grid:
    size = x.shape[0] // _SUPERSAMPLING
    blocks = x.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 3)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
