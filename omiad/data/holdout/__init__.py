"""A validation set made of training images alone: normal ones held out, and artificial defects."""

import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from omiad.data.holdout.pasting import DEFECTS, Canvas, blot, find_foreground
from omiad.data.images import load_image
from omiad.data.layouts import Layout, index_dataset
from omiad.errors import InputError
from omiad.types import NORMAL, Sample

VISIBLE = 12
"""Least change of a colour channel, of 255, that counts as defective."""

MIN_AREA = 2e-4
"""Least share of the image that a defect covers; a smaller one is drawn anew."""

_ATTEMPTS = 20


def hold_out(
    root: str | Path,
    output: str | Path,
    *,
    layout: Layout = "auto",
    fraction: float = 0.25,
    num_defective: int = 48,
    seed: int = 0,
) -> None:
    """Write a data set for choosing settings, in the MVTec layout, from training images alone.

    Of each category a part of the normal training images is held out: they become test/good, and,
    with artificial defects pasted on, the test images of each kind of defect with exact masks. The
    rest is linked as train/good. No test image of the data set is read, so that what is chosen by
    `omiad test` on the result says nothing false about it. The same seed gives the same files.

    Args:
        root: Folder of the data set.
        output: Folder to write to; must be empty or absent.
        layout: How the data set lies there; auto looks at the sub-folders.
        fraction: Share of the training images that is held out, at least two of each category.
        num_defective: Defective images of each category, spread over the kinds of defect.
        seed: Which images are held out, and their defects.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If the output holds anything, a number is out of its range, or a category has
            fewer than four training images.
    """
    root, output = Path(root).expanduser(), Path(output).expanduser()
    if output.exists() and any(output.iterdir()):
        raise InputError(f"'{output}' is not empty. Give a folder that does not exist yet.")
    if not 0 < fraction < 1 or num_defective < 1:
        raise InputError(
            f"fraction must lie between 0 and 1 and num_defective be at least 1, but got "
            f"{fraction} and {num_defective}."
        )
    samples = [s for s in index_dataset(root, layout).samples if s.split == "train"]
    for category in sorted({sample.category for sample in samples}):
        mine = [sample for sample in samples if sample.category == category]
        held = _held_out(mine, category, fraction=fraction, seed=seed)
        folder = output / category
        for number, sample in enumerate(mine):
            split = "test" if number in held else "train"
            link = folder / split / NORMAL / f"{number:05}{sample.image.suffix.lower()}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(sample.image.resolve())
        jobs = [
            (kind, held[(i + i // len(DEFECTS)) % len(held)], i // len(DEFECTS))
            for i, kind in enumerate(sorted(DEFECTS) * -(-num_defective // len(DEFECTS)))
        ][:num_defective]
        for kind, number, i in track(jobs, description=category):
            picture, mask = deface(mine[number], kind, samples, seed=seed + 1_000_003 * i)
            _save(picture, folder / "test" / kind / f"{i:03}.png")
            _save(255 * mask.astype(np.uint8), folder / "ground_truth" / kind / f"{i:03}_mask.png")


def deface(
    sample: Sample, kind: str, others: list[Sample], *, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Paste an artificial defect on a photograph.

    Args:
        sample: The photograph.
        kind: A key of `DEFECTS`.
        others: Photographs to take foreign texture from.
        seed: Seed of the defect.

    Returns:
        The picture (H, W, 3) at its own size, and the pixels that changed visibly (H, W).

    Raises:
        InputError: If no visible defect can be made, as on an image of a few pixels.
    """
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind}/{sample.image.name}".encode())])
    picture = load_image(sample.image).astype(np.float32)
    height, width = picture.shape[:2]
    foreground = find_foreground(picture)
    for _ in range(_ATTEMPTS):
        other = Image.fromarray(load_image(others[rng.integers(len(others))].image))
        canvas = Canvas(
            picture,
            np.asarray(other.resize((width, height)), np.float32),
            blot(foreground, rng),
            foreground,
            rng,
        )
        if not canvas.shape.any():
            continue
        pixels = DEFECTS[kind](canvas).clip(0, 255).round().astype(np.uint8)
        changed = np.abs(pixels - picture).max(axis=2) >= VISIBLE
        if changed.mean() >= MIN_AREA:
            return pixels, changed
    raise InputError(
        f"No visible defect of kind '{kind}' could be drawn on '{sample.image}' ({width} x "
        f"{height} pixels). Leave the image out, or take larger ones."
    )


def _held_out(samples: list[Sample], category: str, *, fraction: float, seed: int) -> list[int]:
    """Return which images are held out, ascending; all views of a part together."""
    parts = sorted({sample.sample_id or str(sample.image) for sample in samples})
    count = max(2, round(fraction * len(parts)))
    if len(parts) < 4:
        raise InputError(
            f"Category '{category}' has {len(parts)} normal training images; holding some out "
            f"needs at least 4. Add images or leave the category out."
        )
    rng = np.random.default_rng([seed, zlib.crc32(category.encode())])
    picked = {parts[i] for i in rng.choice(len(parts), count, replace=False)}
    return [i for i, s in enumerate(samples) if (s.sample_id or str(s.image)) in picked]


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
