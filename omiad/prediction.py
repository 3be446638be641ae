"""Score photographs with a checkpoint: a table, a heat-map for each, and a page of them."""

import csv
import logging
from collections import Counter
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from omiad.data.images import IMAGE_SUFFIXES, read_image
from omiad.detector import Detector
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

    Writes predictions.csv (image, score, overlay), one overlay for each image, and index.html, a
    page of them. All overlays share the scale stored in the checkpoint, so that normal images stay
    clear.

    Args:
        ckpt_path: Checkpoint of an AMDM or OmiAD run; nothing else is needed.
        images: An image, or a folder searched with its sub-folders.
        output: Folder to write to.
        batch_size: Images scored at once; does not change a score.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        max_megabytes: Most that the pictures of the page may take, 1 MB being 10**6 bytes; the
            least anomalous are left out.

    Raises:
        InputError: If the output folder holds predictions, or an image cannot be read (after all
            others have been scored).
    """
    paths, root = find_images(images)
    folder = Path(output)
    if (folder / "predictions.csv").exists():
        raise InputError(f"'{folder}' already holds predictions. Choose another --output.")
    free_page(folder, option="--output")
    detector = Detector.load(ckpt_path, device=pick_device(device))
    low, high = detector.map_range.tolist()
    page = PredictionPage(folder, scale=(low, high), max_megabytes=max_megabytes)
    names = overlay_names([path.relative_to(root) for path in paths])
    folder.mkdir(parents=True, exist_ok=True)
    unreadable: list[str] = []
    batches = [range(i, min(i + batch_size, len(paths))) for i in range(0, len(paths), batch_size)]
    csv_path = folder / "predictions.csv"
    # Names of files need not be text: they are written as they are stored.
    with csv_path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(["image", "score", "overlay"])
        for batch in track(batches, description="predict"):
            pixels = {}
            for i in batch:
                image = _read(paths[i], detector.extractor.image_size, unreadable)
                if image is not None:
                    pixels[i] = image
            if not pixels:
                continue
            stacked = torch.stack(list(pixels.values()))
            prediction = detector(stacked.to(detector.map_range.device))
            for row, i in enumerate(pixels):
                path = folder / "overlays" / names[i]
                path.parent.mkdir(parents=True, exist_ok=True)
                shown = pixels[i].permute(1, 2, 0).numpy()
                anomaly_map = prediction.anomaly_map[row].cpu().numpy()
                score = prediction.score[row].item()
                overlay(shown, anomaly_map, (low, high)).save(path)
                table.writerow([paths[i], f"{score:.6g}", path.relative_to(folder)])
                page.add(
                    paths[i].relative_to(root).as_posix(),
                    path=paths[i],
                    pixels=shown,
                    anomaly_map=anomaly_map,
                    score=score,
                )
    logger.info("page: %s", page.write())
    logger.info("predictions of %d images: %s", len(paths) - len(unreadable), folder)
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {len(paths)} images could not be read and have no prediction; "
            f"the first: {unreadable[0]}"
        )


def _read(path: Path, size: int, unreadable: list[str]) -> Tensor | None:
    try:
        return read_image(path, size)
    except InputError as error:
        unreadable.append(str(error))
        return None


def find_images(images: str) -> tuple[list[Path], Path]:
    """Return the image files at a path, sorted, and the folder their names are relative to.

    Raises:
        MissingInputError: If the path does not exist.
        InputError: If the folder holds no image.
    """
    path = Path(images)
    if path.is_file():
        return [path], path.parent
    if not path.is_dir():
        raise MissingInputError(f"No image or folder at '{path}'. Check --images.")
    paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise InputError(
            f"'{path}' holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}). Check --images."
        )
    return paths, path


def overlay_names(relative: list[Path]) -> list[Path]:
    """Name the overlay of each image: its own path with .png, kept apart where stems clash."""
    counts = Counter(path.with_suffix("") for path in relative)
    return [
        path.with_suffix(".png")
        if counts[path.with_suffix("")] == 1
        else path.with_name(path.name + ".png")
        for path in relative
    ]


def pick_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one.

    Raises:
        InputError: If the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device '{name}' is not available here. Use --device cpu.") from error
    return device
