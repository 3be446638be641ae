"""Pictures of images beside their anomaly maps, all maps on one scale."""

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
from omiad.gallery import KeptImages, gallery_path, read_gallery, turns
from omiad.report.colors import heat
from omiad.results import read_results

logger = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
Map = NDArray[np.floating[Any]]

COLUMNS = (
    "normal reference",
    "input",
    "our reconstruction",
    "ground truth",
    "anomaly map",
    "overlay",
)
"""The reconstruction only where there is one."""
_GAP, _HEAD, _LABEL, _LEGEND = 6, 26, 22, 44
_HEADING = 118
"""Pixels that the longest heading takes; columns of smaller pictures keep this distance."""
_INK, _PAPER, _EMPTY = (32, 32, 32), (255, 255, 255), (235, 235, 235)


_MAX_SIDE = 256


class PanelRow(NamedTuple):
    """One test image to show.

    Attributes:
        reference: A normal image of the same category (H, W, 3), uint8, or None without one.
        image: The image (H, W, 3), uint8.
        mask: Its defective pixels (H, W), bool, or None where nobody drew them.
        anomaly_map: Its pixel scores (H, W).
        label: Name of the defect.
        score: Image score.
        reconstruction: What it is reconstructed to (H, W, 3), uint8, or None without a decoder.
    """

    reference: Pixels | None
    image: Pixels
    mask: NDArray[np.bool_] | None
    anomaly_map: Map
    label: str
    score: float
    reconstruction: Pixels | None = None


def scaled(anomaly_map: Map, scale: tuple[float, float]) -> Map:
    """Map the scores from `scale` (low, high) to [0, 1], clipped."""
    low, high = scale
    return np.asarray(np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1))


def overlay(image: Pixels, anomaly_map: Map, scale: tuple[float, float]) -> Image.Image:
    """Lay a map over its image; the lower the score, the more of the image shows.

    Args:
        image: RGB pixels (H, W, 3), uint8.
        anomaly_map: Pixel scores (H, W).
        scale: Scores drawn as darkest and brightest.

    Raises:
        InputError: If image and map differ in size.
    """
    if image.shape[:2] != anomaly_map.shape:
        raise InputError(
            f"An overlay needs a map of its image's size, but got {anomaly_map.shape} for an "
            f"image of {image.shape[:2]}."
        )
    values = scaled(anomaly_map, scale)
    opacity = 0.75 * np.clip(2 * values - 0.5, 0, 1)[..., None]
    blended = (1 - opacity) * image + opacity * heat(values)
    return Image.fromarray(blended.round().astype(np.uint8))


def panel(rows: Sequence[PanelRow], scale: tuple[float, float]) -> Image.Image:
    """Draw rows of reference, input, reconstruction, ground truth and map (paper Fig. 2).

    Args:
        rows: Images to show, all of one size.
        scale: Scores drawn as darkest and brightest, the same in every row.

    Raises:
        InputError: If there is no row, not all pictures have one size, or some rows alone have a
            reconstruction.
    """
    if not rows:
        raise InputError("A panel needs at least one row, but got none.")
    height, width = rows[0].image.shape[:2]
    for row in rows:
        _check_sizes(row, (height, width))
    if len({row.reconstruction is None for row in rows}) > 1:
        raise InputError("Give every row of a panel its reconstruction, or none.")
    drawn = any(row.reconstruction is not None for row in rows)
    columns = [name for name in COLUMNS if drawn or name != "our reconstruction"]
    step_x, step_y = max(width, _HEADING) + _GAP, height + _LABEL + _GAP
    size = (_GAP + len(columns) * step_x, _HEAD + len(rows) * step_y + _LEGEND)
    canvas = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for column, name in enumerate(columns):
        draw.text((_GAP + column * step_x, 6), name, fill=_INK, font=font)
    for i, row in enumerate(rows):
        top = _HEAD + i * step_y
        draw.text((_GAP, top + 2), f"{row.label}, score {row.score:.4g}", fill=_INK, font=font)
        cells = [
            _drawn(row.reference, (width, height), otherwise="no normal image"),
            Image.fromarray(row.image),
            *([] if row.reconstruction is None else [Image.fromarray(row.reconstruction)]),
            _drawn(_white(row.mask), (width, height), otherwise="no mask"),
            Image.fromarray(heat(scaled(row.anomaly_map, scale))),
            overlay(row.image, row.anomaly_map, scale),
        ]
        for column, cell in enumerate(cells):
            canvas.paste(cell, (_GAP + column * step_x, top + _LABEL))
    _draw_legend(canvas, scale, (_GAP, _HEAD + len(rows) * step_y + 4), size[0] - 2 * _GAP)
    return canvas


def write_panels(results: Path, *, num_images: int) -> None:
    """Write panels/<category>.png beside a results.json, of the images its test kept.

    All maps are drawn on one scale, which comes from normal images, so that those stay dark.

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


def _row(images: KeptImages, i: int, root: Path, scale: tuple[float, float], side: int) -> PanelRow:
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


def _check_sizes(row: PanelRow, size: tuple[int, int]) -> None:
    for name in ("reference", "image", "reconstruction", "mask", "anomaly_map"):
        picture = getattr(row, name)
        if picture is not None and picture.shape[:2] != size:
            raise InputError(
                f"The {name} of '{row.label}' is {picture.shape[0]} x {picture.shape[1]} in a "
                f"panel of {size[0]} x {size[1]} pixels. Resize it first."
            )


def _white(mask: NDArray[np.bool_] | None) -> Pixels | None:
    return None if mask is None else np.uint8(255) * mask[..., None].repeat(3, axis=-1)


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
