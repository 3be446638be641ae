"""Pictures of test images beside their anomaly maps, with one colour scale for all maps."""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omiad.errors import InputError
from omiad.files import whole_file
from omiad.names import one_line
from omiad.photographs import WHITE_LEVEL, read_image
from omiad.report.archive import StoredImages
from omiad.report.kept import turns
from omiad.report.pictures import Map, Pixels, heat, scaled

logger = logging.getLogger(__name__)

_GAP, _HEAD, _LABEL, _LEGEND = 6, 26, 22, 44
_HEADING = 118
"""Width of the longest heading in pixels; columns of smaller pictures are as far apart."""
_TEXT: dict[str, Any] = {"fill": (32, 32, 32), "font_size": 13}


def overlay(image: Pixels, anomaly_map: Map, scale: Sequence[float]) -> Image.Image:
    """Lay a map (H, W) over its image (H, W, 3), uint8, on a scale from darkest to brightest score.

    The lower a score, the more of the image shows.
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


def write_panels(
    folder: Path,
    gallery: Mapping[str, StoredImages],
    *,
    root: Path,
    scale: Sequence[float],
    image_size: int,
    num_images: int,
    white_level: int = WHITE_LEVEL,
) -> None:
    """Write <category>.png of each category of a gallery, as in Fig. 2 of the paper.

    Each picture shows at most `num_images`, spread over the defects of its category. The root is
    that of the data set, the scale that of the gallery, and the images have the model's size.
    """
    side = min(image_size, 256)

    def read(name: str) -> Image.Image:
        try:
            pixels = read_image(root / name, side, white_level=white_level)
        except InputError:  # a photograph that is gone must not cost the results
            return _empty(side, "unreadable")
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    folder.mkdir(parents=True, exist_ok=True)
    for category, images in gallery.items():
        defects: dict[str, list[int]] = defaultdict(list)
        for i, defect in enumerate(images.defect.tolist()):
            defects[defect].append(i)
        picked = sorted(turns(defects.values())[:num_images])
        rows = [_pictures(images, i, read) for i in picked]
        labels = [f"{one_line(images.defect[i])}, score {images.score[i]:.4g}" for i in picked]
        with whole_file(folder / f"{category}.png") as temporary:
            _panel(rows, labels, scale).save(temporary, "PNG")
    logger.info("panels: %s", folder)


def _pictures(
    images: StoredImages, i: int, photograph: Callable[[str], Image.Image]
) -> dict[str, Image.Image]:
    """Return the pictures of an image by their headings, all of one side."""

    def resized(pixels: NDArray[Any], how: Image.Resampling) -> Image.Image:
        return Image.fromarray(pixels).resize((side, side), how)

    image, reference = photograph(str(images.name[i])), str(images.reference[0])
    side = image.width
    pictures = {
        "normal reference": photograph(reference) if reference else _empty(side, "no normal image"),
        "input": image,
    }
    if images.reconstruction[i].size:
        drawn = resized(images.reconstruction[i], Image.Resampling.BILINEAR)
        pictures["our reconstruction"] = drawn
    pictures["ground truth"] = (
        resized(images.mask[i].astype(np.uint8) * 255, Image.Resampling.NEAREST)
        if images.has_mask[i]
        else _empty(side, "no mask")
    )
    level = resized(images.level[i].astype(np.float32) / 255, Image.Resampling.BILINEAR)
    pictures["anomaly map"] = Image.fromarray(heat(np.asarray(level)))
    pictures["overlay"] = overlay(np.asarray(image), np.asarray(level), (0, 1))
    return pictures


def _panel(
    rows: Sequence[Mapping[str, Image.Image]], labels: Sequence[str], scale: Sequence[float]
) -> Image.Image:
    """Draw rows of pictures below their labels, and the colour scale below all."""
    side = rows[0]["input"].width
    step_x, step_y = max(side, _HEADING) + _GAP, side + _LABEL + _GAP
    width, height = _GAP + len(rows[0]) * step_x, _HEAD + len(rows) * step_y + _LEGEND
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for i, heading in enumerate(rows[0]):
        draw.text((_GAP + i * step_x, 6), heading, **_TEXT)
    for number, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = _HEAD + number * step_y
        draw.text((_GAP, top + 2), label, **_TEXT)
        for i, picture in enumerate(row.values()):
            canvas.paste(picture, (_GAP + i * step_x, top + _LABEL))
    top, length = height - _LEGEND + 4, width - 2 * _GAP
    canvas.paste(Image.fromarray(heat(np.tile(np.linspace(0, 1, length), (12, 1)))), (_GAP, top))
    for i, (anchor, more) in enumerate((("la", " or less"), ("ma", ""), ("ra", " or more"))):
        text = f"{scale[0] + (scale[1] - scale[0]) * i / 2:.3g}{more}"
        draw.text((_GAP + length * i // 2, top + 16), text, anchor=anchor, **_TEXT)
    return canvas


def _empty(side: int, text: str) -> Image.Image:
    cell = Image.new("RGB", (side, side), (235, 235, 235))
    ImageDraw.Draw(cell).text((side // 2, side // 2), text, anchor="mm", **_TEXT)
    return cell
