"""A validation set of training images: some held out as normal, some with artificial defects."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omiad.data.holdout.pasting import DEFECTS, DIAMETERS, SMALL, Canvas, blot, find_foreground
from omiad.data.images import save_image
from omiad.data.layouts import Layout, index_dataset
from omiad.errors import InputError, together
from omiad.files import expanded, whole_folder
from omiad.photographs import load_image
from omiad.progress import track
from omiad.types import NORMAL, Sample

VISIBLE = 12  # smallest change of a colour channel, out of 255, that counts as defective
MIN_AREA = 2e-4  # share of the image; a defect that covers less is drawn again
FAINT = (0.2, 0.9)  # opacity of a faint defect, log-uniform
FAINT_MIN_AREA = 5e-5
FAINT_VISIBLE = 7  # smallest median change of a faint defect, out of 255
_ATTEMPTS = 20


def hold_out(
    root: str | Path,
    output: str | Path,
    *,
    layout: Layout = "auto",
    fraction: float = 0.25,
    num_defective: int = 48,
    faint: bool = False,
    seed: int = 0,
) -> None:
    """Write a validation set for choosing settings, in the MVTec layout, from training images only.

    A part of each category's normal training images is held out. These become test/good and, with
    artificial defects pasted on, the defective test images, with exact masks. Links to the other
    training images become train/good. No test image of the data set is read, so settings chosen by
    `omiad test` on the result do not bias its test figures. The same seed gives the same files.

    Args:
        root: Folder of the data set.
        output: Folder to write; must be missing or empty. It appears once it is whole.
        layout: Layout of the data set. With auto it is detected from the sub-folders.
        fraction: Share of the training images to hold out; at least two of each category.
        num_defective: Defective images of each category, spread over the kinds of defect.
        faint: Whether defects are small and half transparent, for settings that plain ones do not
            tell apart: 1.2 to 15 % of the longer side, at an opacity of 20 to 90 %.
        seed: Seed of the choice of images and of their defects.

    Raises:
        MissingInputError: If the root does not exist.
        InputError: If the output is not empty, another process writes it, a number is out of range,
            a category has fewer than four training images, or images cannot be read, which are
            named together.
    """
    root, output = expanded(root), expanded(output)
    if not 0 < fraction < 1 or num_defective < 1:
        raise InputError(
            f"fraction must lie between 0 and 1 and num_defective must be at least 1, but got "
            f"{fraction} and {num_defective}."
        )
    with whole_folder(output) as folder:
        samples = [s for s in index_dataset(root, layout).samples if s.split == "train"]
        if faults := [fault for sample in samples if (fault := _fault(sample.image))]:
            raise together(faults)
        for category in sorted({sample.category for sample in samples}):
            mine = [sample for sample in samples if sample.category == category]
            held = _held_out(mine, fraction=fraction, seed=seed)
            _link(mine, held, folder / category)
            for i in track(range(num_defective), category):
                turn, k = divmod(i, len(DEFECTS))
                kind, sample = sorted(DEFECTS)[k], mine[held[(i + turn) % len(held)]]
                picture, mask = deface(
                    sample, kind, samples, seed=seed + 1_000_003 * turn, faint=faint
                )
                save_image(picture, folder / category / "test" / kind / f"{turn:03}.png")
                truth = folder / category / "ground_truth" / kind
                save_image(mask, truth / f"{turn:03}_mask.png")


def _fault(image: Path) -> InputError | None:
    """Return why an image cannot be read, None if it can."""
    try:
        load_image(image)
    except InputError as error:
        return error
    return None


def _link(samples: Sequence[Sample], held: Sequence[int], folder: Path) -> None:
    """Write links to the held-out images of a category, and to its remaining training images."""
    for number, sample in enumerate(samples):
        split = "test" if number in held else "train"
        link = folder / split / NORMAL / f"{number:05}{sample.image.suffix.lower()}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(sample.image.resolve())


def deface(
    sample: Sample, kind: str, others: list[Sample], *, seed: int, faint: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a photograph (H, W, 3) with an artificial defect, and its mask (H, W), 0 or 255.

    The mask of a faint defect is that of the same defect in full. Foreign texture comes from the
    others. On a photograph of a few pixels no defect can be drawn.
    """
    rng = np.random.default_rng([seed, zlib.crc32(os.fsencode(f"{kind}/{sample.image.name}"))])
    picture = load_image(sample.image).astype(np.float32)
    height, width = picture.shape[:2]
    foreground = find_foreground(picture)
    for _ in range(_ATTEMPTS):
        other = Image.fromarray(load_image(others[rng.integers(len(others))].image))
        resized = np.asarray(other.resize((width, height)), np.float32)
        shape = blot(foreground, rng, SMALL if faint else DIAMETERS)
        if not shape.any():
            continue
        canvas = Canvas(picture, resized, shape, foreground, rng)
        full = DEFECTS[kind](canvas).clip(0, 255).round()
        opacity = np.exp(rng.uniform(*np.log(FAINT))) if faint else 1.0
        pixels = (picture + opacity * (full - picture)).round().astype(np.uint8)
        change = np.abs(full - picture).max(axis=2)
        defective = change >= VISIBLE
        if defective.mean() < (FAINT_MIN_AREA if faint else MIN_AREA):
            continue
        if not faint or opacity * np.median(change[defective]) >= FAINT_VISIBLE:
            return pixels, (255 * defective).astype(np.uint8)
    raise InputError(
        f"No visible defect of kind '{kind}' could be drawn on '{sample.image}' ({width} x "
        f"{height} pixels). Remove the image, or use larger ones."
    )


def _held_out(samples: list[Sample], *, fraction: float, seed: int) -> list[int]:
    """Return the numbers of the images to hold out, ascending, with all views of each part."""
    category, names = samples[0].category, [s.sample_id or str(s.image) for s in samples]
    parts = sorted(set(names))
    if len(parts) < 4:
        raise InputError(
            f"Category '{category}' has {len(parts)} normal training images, but at least 4 are "
            f"needed to hold some out. Add images or leave the category out."
        )
    rng = np.random.default_rng([seed, zlib.crc32(category.encode())])
    picked = set(rng.choice(parts, max(2, round(fraction * len(parts))), replace=False))
    return [i for i, name in enumerate(names) if name in picked]
