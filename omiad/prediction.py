"""`omiad predict`: score photographs; write a table, an overlay of each, and a page of them."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from omiad.data.images import IMAGE_SUFFIXES, read_image
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
        batch_size: Images scored at once; the scores do not depend on it.
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
    overlays = dict(
        zip(paths, overlay_names([path.relative_to(root) for path in paths]), strict=True)
    )
    folder.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    # A file name need not be text: it is written with the bytes that it has on disk.
    with csv_path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(["image", "score", "overlay"])
        for path, image, map_, score in score_photographs(detector, paths, batch_size, unreadable):
            pixels, anomaly_map = image.permute(1, 2, 0).numpy(), map_.numpy()
            drawn = Path("overlays") / overlays[path]
            (folder / drawn).parent.mkdir(parents=True, exist_ok=True)
            overlay(pixels, anomaly_map, (low, high)).save(folder / drawn)
            table.writerow([path, f"{score:.6g}", drawn])
            name = path.relative_to(root).as_posix()
            page.add(name, path=path, pixels=pixels, anomaly_map=anomaly_map, score=score)
    logger.info("page: %s", page.write())
    logger.info("predictions of %d images: %s", len(paths) - len(unreadable), folder)
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(paths)} images could not be read and have no prediction. "
            f"The first of them: {unreadable[0]}"
        )


def score_photographs(
    detector: Detector, paths: Sequence[Path], batch_size: int, unreadable: list[str]
) -> Iterator[tuple[Path, Tensor, Tensor, float]]:
    """Yield each readable photograph, in order: file, pixels (3, S, S), map (S, S) and score.

    Args:
        detector: The model.
        paths: The files.
        batch_size: Images scored at once.
        unreadable: List that takes a sentence for each file that cannot be read.
    """
    size, device = detector.extractor.image_size, detector.map_range.device
    starts = range(0, len(paths), batch_size)
    for batch in track([paths[i : i + batch_size] for i in starts], description="predict"):
        images = {
            path: read for path in batch if (read := _read(path, size, unreadable)) is not None
        }
        if images:
            scores, maps = detector(torch.stack([*images.values()]).to(device))
            for row, (path, image) in enumerate(images.items()):
                yield path, image, maps[row].cpu(), scores[row].item()


def _read(path: Path, size: int, unreadable: list[str]) -> Tensor | None:
    try:
        return read_image(path, size)
    except InputError as error:
        unreadable.append(str(error))
        return None


def find_images(images: str) -> tuple[list[Path], Path]:
    """Return the image files at a path, sorted, and the folder that contains them.

    Raises:
        MissingInputError: If the path does not exist.
        InputError: If the folder contains no image.
    """
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


def overlay_names(relative: list[Path]) -> list[Path]:
    """Return the overlay's path for each image: the image's path with .png as its suffix.

    Images that differ in their suffix alone keep it: bolt.jpg.png and bolt.bmp.png.
    """
    counts = Counter(path.with_suffix("") for path in relative)
    return [
        path.with_suffix(".png")
        if counts[path.with_suffix("")] == 1
        else path.with_name(path.name + ".png")
        for path in relative
    ]
