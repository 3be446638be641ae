"""Tiny data sets on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_mvtec(
    root: Path,
    rng: np.random.Generator,
    *,
    categories: Sequence[str] = ("bottle", "cable"),
    num_train: int = 4,
    num_good: int = 3,
    num_bad: int = 3,
    size: int = 32,
) -> None:
    """Write noisy stripes in the MVTec layout; the defect "hole" is a dark square with a mask."""
    for number, category in enumerate(categories):
        stripes = 128 + 60 * np.sin(np.arange(size) * (number + 1) / 3)
        counts = {"train/good": num_train, "test/good": num_good, "test/hole": num_bad}
        for folder, count in counts.items():
            for i in range(count):
                noise = rng.normal(0, 8, (size, size, 3))
                pixels = (stripes[None, :, None] + noise).clip(0, 255).astype(np.uint8)
                if folder == "test/hole":
                    top, left = rng.integers(0, size - 8, 2)
                    mask = np.zeros((size, size), np.uint8)
                    mask[top : top + 8, left : left + 8] = 255
                    pixels[mask > 0] = 0
                    _save(mask, root / category / "ground_truth" / "hole" / f"{i:03}_mask.png")
                _save(pixels, root / category / folder / f"{i:03}.png")


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
