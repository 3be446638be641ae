"""Pictures of test images beside their anomaly maps, with one colour scale for all maps."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from omiad.data.images import read_image
from omiad.errors import InputError
from omiad.report.archive import StoredImages, gallery_path, read_gallery
from omiad.report.colors import heat
from omiad.report.kept import turns
from omiad.results import read_results

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Map = NDArray[np.floating[Any]]

_GAP, _HEAD, _LABEL, _LEGEND = 6, 26, 22, 44
_HEADING = 118
"""Width of the longest heading in pixels; columns of smaller pictures are as far apart."""
_INK = (32, 32, 32)
_MAX_SIDE = 256


def scaled(anomaly_map: Map, scale: tuple[float, float]) -> Map:
    """Map scores from `scale` (low, high) to [0, 1], clipped."""
    low, high = scale
    return np.asarray(np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1))


def overlay(image: Pixels, anomaly_map: Map, scale: tuple[float, float]) -> Image.Image:
    """Lay a map over its image; the lower a score, the more of the image shows.

    Args:
        image: RGB pixels (H, W, 3), uint8.
        anomaly_map: Pixel scores (H, W).
        scale: Scores to draw darkest and brightest.

    Raises:
        InputError: If image and map differ in size.
    """
    if image.shape[:2] != anomaly_map.shape:
        raise InputError(
            f"An overlay needs a map of the image's size {image.shape[:2]}, but got "
            f"{anomaly_map.shape}. Resize the map."
        )
    values = scaled(anomaly_map, scale)
    opacity = 0.75 * np.clip(2 * values - 0.5, 0, 1)[..., None]
    blended = (1 - opacity) * image + opacity * heat(values)
    return Image.fromarray(blended.round().astype(np.uint8))


def write_panels(results: Path, *, num_images: int) -> None:
    """Write panels/<category>.png beside a results.json, as in Fig. 2 of the paper.

    Args:
        results: The results.json.
        num_images: Images in each picture, spread over defects.
    """
    record = read_results(results)
    scale = (record["map_range"][0], record["map_range"][1])
    folder = results.parent / "panels"
    folder.mkdir(exist_ok=True)
    for category, images in read_gallery(gallery_path(results)).items():
        defects: dict[str, list[int]] = defaultdict(list)
        for i, defect in enumerate(images.defect.tolist()):
            defects[defect].append(i)
        picked = turns(list(defects.values()))[:num_images]
        side = min(record["model"]["image_size"], _MAX_SIDE)
        rows = [_pictures(images, i, Path(record["root"]), scale, side) for i in sorted(picked)]
        labels = [f"{images.defect[i]}, score {images.score[i]:.4g}" for i in sorted(picked)]
        _panel(rows, labels, scale).save(folder / f"{category}.png")
    logger.info("panels: %s", folder)


def _pictures(
    images: StoredImages, i: int, root: Path, scale: tuple[float, float], side: int
) -> dict[str, Image.Image]:
    """Return the pictures of an image by their headings, all of one side."""

    def resized(pixels: NDArray[Any], how: Image.Resampling) -> Image.Image:
        return Image.fromarray(pixels).resize((side, side), how)

    def photograph(name: str) -> Pixels:
        return np.asarray(read_image(root / name, side).permute(1, 2, 0).numpy())

    low, high = scale
    image, reference = photograph(str(images.name[i])), str(images.reference[0])
    level = resized(images.level[i].astype(np.float32), Image.Resampling.BILINEAR)
    anomaly_map = low + np.asarray(level) / 255 * (high - low)
    pictures = {
        "normal reference": Image.fromarray(photograph(reference))
        if reference
        else _empty(side, "no normal image"),
        "input": Image.fromarray(image),
        "our reconstruction": resized(images.reconstruction[i], Image.Resampling.BILINEAR)
        if images.reconstruction[i].size
        else None,
        "ground truth": resized(images.mask[i].astype(np.uint8) * 255, Image.Resampling.NEAREST)
        if images.has_mask[i]
        else _empty(side, "no mask"),
        "anomaly map": Image.fromarray(heat(scaled(anomaly_map, scale))),
        "overlay": overlay(image, anomaly_map, scale),
    }
    return {heading: picture for heading, picture in pictures.items() if picture is not None}


def _panel(
    rows: Sequence[Mapping[str, Image.Image]], labels: Sequence[str], scale: tuple[float, float]
) -> Image.Image:
    """Draw rows of pictures below their labels, and the colour scale below all."""
    side = rows[0]["input"].width
    step_x, step_y = max(side, _HEADING) + _GAP, side + _LABEL + _GAP
    width, height = _GAP + len(rows[0]) * step_x, _HEAD + len(rows) * step_y + _LEGEND
    canvas = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for i, heading in enumerate(rows[0]):
        draw.text((_GAP + i * step_x, 6), heading, fill=_INK, font=font)
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = _HEAD + number * step_y
        draw.text((_GAP, top + 2), label, fill=_INK, font=font)
        for i, picture in enumerate(row.values()):
            canvas.paste(picture, (_GAP + i * step_x, top + _LABEL))
    top, length = height - _LEGEND + 4, width - 2 * _GAP
    canvas.paste(Image.fromarray(heat(np.tile(np.linspace(0, 1, length), (12, 1)))), (_GAP, top))
    for i, (anchor, more) in enumerate((("la", " or less"), ("ma", ""), ("ra", " or more"))):
        text = f"{scale[0] + (scale[1] - scale[0]) * i / 2:.3g}{more}"
        place = (_GAP + length * i // 2, top + 16)
        draw.text(place, text, fill=_INK, font=font, anchor=anchor)
    return canvas


def _empty(side: int, text: str) -> Image.Image:
    cell = Image.new("RGB", (side, side), (235, 235, 235))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(cell).text((side // 2, side // 2), text, fill=_INK, font=font, anchor="mm")
    return cell
