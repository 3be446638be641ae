"""Pictures of test images beside their anomaly maps, with one colour scale for all maps."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
_INK, _PAPER, _EMPTY = (32, 32, 32), (255, 255, 255), (235, 235, 235)
_MAX_SIDE = 256


class PanelRow(NamedTuple):
    """One test image, all pictures of one size.

    Attributes:
        reference: A normal image of the category (H, W, 3), uint8; None if there is none.
        image: The image (H, W, 3), uint8.
        mask: Its defective pixels (H, W), bool; None if nobody drew them.
        anomaly_map: Its pixel scores (H, W).
        label: Name of the defect.
        score: Image score.
        reconstruction: The model's reconstruction (H, W, 3), uint8; None without a decoder.
    """

    reference: Pixels | None
    image: Pixels
    mask: NDArray[np.bool_] | None
    anomaly_map: Map
    label: str
    score: float
    reconstruction: Pixels | None = None


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


def panel(rows: Sequence[PanelRow], scale: tuple[float, float]) -> Image.Image:
    """Draw a row of pictures for each image, as in Fig. 2 of the paper.

    Args:
        rows: Images to show, all of one size.
        scale: Scores to draw darkest and brightest.
    """
    height, width = rows[0].image.shape[:2]
    columns = [_columns(row, scale) for row in rows]
    step_x, step_y = max(width, _HEADING) + _GAP, height + _LABEL + _GAP
    size = (_GAP + len(columns[0]) * step_x, _HEAD + len(rows) * step_y + _LEGEND)
    canvas = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for i, heading in enumerate(columns[0]):
        draw.text((_GAP + i * step_x, 6), heading, fill=_INK, font=font)
    for number, (row, pictures) in enumerate(zip(rows, columns, strict=True)):
        top = _HEAD + number * step_y
        draw.text((_GAP, top + 2), f"{row.label}, score {row.score:.4g}", fill=_INK, font=font)
        for i, picture in enumerate(pictures.values()):
            canvas.paste(picture, (_GAP + i * step_x, top + _LABEL))
    _draw_legend(canvas, scale, (_GAP, size[1] - _LEGEND + 4), size[0] - 2 * _GAP)
    return canvas


def write_panels(results: Path, *, num_images: int) -> None:
    """Write panels/<category>.png beside a results.json, of the images that the test kept.

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
        rows = [_row(images, i, Path(record["root"]), scale, side) for i in sorted(picked)]
        panel(rows, scale).save(folder / f"{category}.png")
    logger.info("panels: %s", folder)


def _row(
    images: StoredImages, i: int, root: Path, scale: tuple[float, float], side: int
) -> PanelRow:
    def resized(pixels: NDArray[Any], how: Image.Resampling) -> NDArray[Any]:
        return np.array(Image.fromarray(pixels).resize((side, side), how))

    def photograph(name: str) -> Pixels:
        return np.asarray(read_image(root / name, side).permute(1, 2, 0).numpy())

    low, high = scale
    level = resized(images.level[i].astype(np.float32), Image.Resampling.BILINEAR)
    mask = resized(images.mask[i].astype(np.uint8), Image.Resampling.NEAREST) > 0
    drawn = images.reconstruction[i]
    reference = str(images.reference[0])
    return PanelRow(
        reference=photograph(reference) if reference else None,
        image=photograph(str(images.name[i])),
        mask=mask if images.has_mask[i] else None,
        anomaly_map=low + level / 255 * (high - low),
        label=str(images.defect[i]),
        score=float(images.score[i]),
        reconstruction=resized(drawn, Image.Resampling.BILINEAR) if drawn.size else None,
    )


def _columns(row: PanelRow, scale: tuple[float, float]) -> dict[str, Image.Image]:
    """Return the pictures of a row by their headings."""
    size = row.image.shape[1], row.image.shape[0]
    white = None if row.mask is None else np.uint8(255) * row.mask[..., None].repeat(3, axis=-1)
    pictures = {
        "normal reference": _drawn(row.reference, size, otherwise="no normal image"),
        "input": Image.fromarray(row.image),
        "our reconstruction": _drawn(row.reconstruction, size, otherwise=""),
        "ground truth": _drawn(white, size, otherwise="no mask"),
        "anomaly map": Image.fromarray(heat(scaled(row.anomaly_map, scale))),
        "overlay": overlay(row.image, row.anomaly_map, scale),
    }
    if row.reconstruction is None:
        del pictures["our reconstruction"]
    return pictures


def _drawn(pixels: Pixels | None, size: tuple[int, int], *, otherwise: str) -> Image.Image:
    if pixels is not None:
        return Image.fromarray(pixels)
    cell = Image.new("RGB", size, _EMPTY)
    centre = (size[0] // 2, size[1] // 2)
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(cell).text(centre, otherwise, fill=_INK, font=font, anchor="mm")
    return cell


def _draw_legend(
    canvas: Image.Image, scale: tuple[float, float], at: tuple[int, int], width: int
) -> None:
    bar = Image.fromarray(heat(np.linspace(0, 1, width)[None].repeat(12, axis=0)))
    canvas.paste(bar, at)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=12)
    for i, anchor in enumerate(("la", "ma", "ra")):
        value = scale[0] + (scale[1] - scale[0]) * i / 2
        text = f"{value:.3g}" + (" or more" if i == 2 else "")
        draw.text((at[0] + width * i // 2, at[1] + 16), text, fill=_INK, font=font, anchor=anchor)
