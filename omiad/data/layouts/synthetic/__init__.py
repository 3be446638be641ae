"""A small synthetic multi-class data set in the MVTec layout, drawn from a seed.

There are two textures and two objects, with varying pose, light and sensor noise, and five kinds of
defect. Masks are exact: they mark the pixels whose colour the defect changes, before light and
noise.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from omiad.data.images import save_image
from omiad.data.layouts.synthetic.scenes import DEFECTS, SCENES, TEXTURES, Grid, turned
from omiad.errors import InputError
from omiad.files import whole_folder
from omiad.progress import track
from omiad.types import NORMAL

VISIBLE = 8 / 255  # smallest change of a colour channel that counts as defective
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

    The same seed gives the same files. An image does not depend on the number of images.

    Args:
        root: Folder to write; must be missing or empty. It appears once it is whole.
        num_train: Normal training images of each category.
        num_test_good: Normal test images of each category.
        num_test_defective: Defective test images of each category, spread over its defects.
        image_size: Side of the images in pixels.
        seed: Seed of all random numbers.
        categories: Categories to write, of board, bricks, fabric and gear.

    Raises:
        InputError: If the folder is not empty, another process writes it, a count is below 1, the
            images are smaller than 16 pixels, or a category is unknown.
    """
    if min(num_train, num_test_good, num_test_defective) < 1 or image_size < 16:
        raise InputError(
            f"Every count must be at least 1 and image_size at least 16, but got num_train "
            f"{num_train}, num_test_good {num_test_good}, num_test_defective "
            f"{num_test_defective} and image_size {image_size}."
        )
    if unknown := sorted(set(categories) - set(SCENES)):
        raise InputError(f"Unknown categories {unknown}. Choose from {', '.join(SCENES)}.")
    jobs: list[tuple[str, str, str | None, int]] = []
    for category in categories:
        defects = list(DEFECTS[category])
        shares = [divmod(i, len(defects)) for i in range(num_test_defective)]
        jobs += [(category, "train", None, i) for i in range(num_train)]
        jobs += [(category, "test", None, i) for i in range(num_test_good)]
        jobs += [(category, "test", defects[k], i) for i, k in shares]
    with whole_folder(Path(root)) as folder:
        for category, split, defect, i in track(jobs, "synthesize"):
            drawn = render(category, split, i, defect=defect, image_size=image_size, seed=seed)
            save_image(drawn[0], folder / category / split / (defect or NORMAL) / f"{i:03}.png")
            if defect is not None:
                truth = folder / category / "ground_truth" / defect
                save_image(drawn[1], truth / f"{i:03}_mask.png")


def render(
    category: str, split: str, index: int, *, defect: str | None, image_size: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render one image (S, S, 3) of a split and defect, and its mask (S, S), 0 or 255."""
    key = zlib.crc32(f"{category}/{split}/{defect}/{index}".encode())
    rng = np.random.default_rng([seed, key])
    scene = SCENES[category](rng)
    # The positions of all pixels in the scene: it is rotated, scaled and, if an object, shifted.
    angle = np.deg2rad(rng.uniform(-8, 8))
    shift = rng.uniform(-0.1, 0.1, 2) * (category not in TEXTURES)
    size = image_size * _SUPERSAMPLING
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * rng.uniform(0.95, 1.05)
    x, y = np.meshgrid(axis + shift[0], axis + shift[1])
    x, y = turned(x, y, -angle)
    clean = albedo = _reduce(scene(x, y))
    if defect is not None:
        albedo = _reduce(DEFECTS[category][defect](scene, x, y, rng))
    changed = np.abs(albedo - clean).max(axis=-1) > VISIBLE
    return _photograph(albedo, rng), (255 * changed).astype(np.uint8)


def _photograph(albedo: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light the scene from a random side and add sensor noise."""
    axis = np.linspace(-1, 1, len(albedo))
    slope, _ = turned(*np.meshgrid(axis, axis), rng.uniform(0, 2 * np.pi))
    light = rng.uniform(0.86, 1.08) * (1 + rng.uniform(0.03, 0.12) * slope)
    warmth = rng.uniform(-0.025, 0.025)
    exposed = albedo * light[..., None] * np.array([1 + warmth, 1, 1 - warmth])
    noisy = exposed + rng.normal(0, 0.012, exposed.shape)
    return np.asarray((255 * np.clip(noisy, 0, 1)).round(), np.uint8)


def _reduce(x: Grid) -> Grid:
    size, side = len(x) // _SUPERSAMPLING, _SUPERSAMPLING
    return np.asarray(x.reshape(size, side, size, side, 3).mean(axis=(1, 3)))
