"""`omiad predict`: score photographs; write a table, an overlay of each, and a page of them."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from omiad.data.images import read_image
from omiad.data.opening import IMAGE_SUFFIXES
from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError, MissingInputError
from omiad.report import PredictionPage, free_page, overlay

logger = logging.getLogger(__name__)


def predict(
    ckpt_path: str,
    images: str,
    *,
    output: str = "predictions",
    batch_size: int = 8,
    device: str = "auto",
    max_megabytes: float = 20,
) -> None:
    """Score photographs and draw where each is anomalous.

    Writes predictions.csv (image, score, overlay), an overlay of each image, and index.html, a page
    of the images. All overlays share the scale that the checkpoint stores, so that an overlay of a
    normal image stays clear.

    Args:
        ckpt_path: Checkpoint of an AMDM or OmiAD run; no other file is needed.
        images: An image, or a folder, which is searched with its sub-folders.
        output: Folder to write to.
        batch_size: Images scored at once; apart from rounding, it changes no score.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        max_megabytes: Most that the pictures of the page may take, in MB of 10**6 bytes. The least
            anomalous images are left out of the page.

    Raises:
        InputError: If the output folder holds predictions, or batch_size is below 1. If an image
            cannot be read, the error comes after all other images have been scored.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, but got {batch_size}.")
    paths, root = find_images(images)
    folder = Path(output)
    csv_path = folder / "predictions.csv"
    if csv_path.exists():
        raise InputError(f"'{folder}' already holds predictions. Choose another --output.")
    free_page(folder, option="--output")
    detector = Detector.load(ckpt_path, device=pick_device(device))
    low, high = detector.map_range.tolist()
    page = PredictionPage(folder, scale=(low, high), max_megabytes=max_megabytes)
    stems = Counter(path.with_suffix("") for path in paths)
    folder.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    # A file name need not be text: it is written with the bytes that it has on disk.
    with csv_path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(["image", "score", "overlay"])
        for path, pixels, map_, score in score_photographs(detector, paths, batch_size, unreadable):
            name = path.relative_to(root)
            # bolt.jpg and bolt.bmp keep their suffix: bolt.jpg.png and bolt.bmp.png.
            is_alone = stems[path.with_suffix("")] == 1
            drawn = "overlays" / name.with_suffix(".png" if is_alone else f"{path.suffix}.png")
            (folder / drawn).parent.mkdir(parents=True, exist_ok=True)
            overlay(pixels, map_, (low, high)).save(folder / drawn)
            table.writerow([path, f"{score:.6g}", drawn])
            page.add(name.as_posix(), path=path, pixels=pixels, anomaly_map=map_, score=score)
    logger.info("page: %s", page.write())
    logger.info("predictions of %d images: %s", len(paths) - len(unreadable), folder)
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(paths)} images could not be read and have no prediction. "
            f"The first of them: {unreadable[0]}"
        )


def score_photographs(
    detector: Detector, paths: Sequence[Path], batch_size: int, unreadable: list[str]
) -> Iterator[tuple[Path, NDArray[Any], NDArray[Any], float]]:
    """Yield each readable photograph, in order: file, pixels (S, S, 3), map (S, S) and score.

    A sentence about each other photograph is added to `unreadable`.
    """
    extractor = detector.extractor
    for start in track(range(0, len(paths), batch_size), description="predict"):
        images: dict[Path, Tensor] = {}
        for path in paths[start : start + batch_size]:
            try:
                images[path] = read_image(
                    path, extractor.image_size, white_level=extractor.white_level
                )
            except InputError as error:  # noqa: PERF203 (the other files must still be scored)
                unreadable.append(str(error))
        if images:
            batch = torch.stack([*images.values()])
            scores, maps = detector(batch.to(detector.map_range.device))
            pixels = batch.permute(0, 2, 3, 1).numpy()
            yield from zip(images, pixels, maps.cpu().numpy(), scores.tolist(), strict=True)


def find_images(images: str) -> tuple[list[Path], Path]:
    """Return the image files at a path, sorted, and the folder that contains them."""
    path = Path(images)
    if path.is_file():
        return [path], path.parent
    if not path.is_dir():
        raise MissingInputError(f"No image or folder at '{path}'. Check --images.")
    paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"'{path}' contains no image ({suffixes}). Check --images.")
    return paths, path
