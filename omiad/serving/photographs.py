"""Photographs as they are sent: their pixels for the model, and the pictures that go back."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image
from torch import Tensor

from omiad.errors import InputError
from omiad.inspection import Inspection
from omiad.photographs import Reader, opened_content, to_rgb
from omiad.predictor import Predictor
from omiad.report import encoded, marked
from omiad.serving.answers import MapPicture, in_text


@dataclass(frozen=True)
class Studio:
    """Reads photographs like files, and draws what was found in them.

    Attributes:
        reader: Reads a photograph for the model.
        scale: Pixel scores of the darkest and of the brightest colour of an overlay.
        max_megapixels: Most pixels of a photograph, in 10**6.
    """

    reader: Reader
    scale: tuple[float, float]
    max_megapixels: float

    @classmethod
    def of(cls, predictor: Predictor, max_megapixels: float) -> "Studio":
        """Return the studio of a model."""
        intake = predictor.extractor
        reader = Reader(
            intake.image_size, white_level=intake.white_level, tiles=intake.tiling.tiles
        )
        low, high = predictor.map_range.tolist()
        return cls(reader, (low, high), max_megapixels)

    def read(self, content: bytes, name: str) -> tuple[Tensor, tuple[int, int]]:
        """Return the photograph of a file's content (3, H, W), uint8, and its width and height.

        Raises:
            InputError: If the content is no image, is damaged, or has too many pixels.
        """
        with opened_content(content, name) as image:
            width, height = image.size
            if width * height > self.max_megapixels * 1e6:
                raise InputError(
                    f"{name} has {width} x {height} pixels, and the service takes at most "
                    f"{self.max_megapixels:g} million. Make it smaller, or start the service with "
                    f"a larger --max_megapixels."
                )
            return self.reader.read(image, name)

    def overlay(self, content: bytes, name: str, found: Inspection, side: int) -> str:
        """Draw map and outlines over a photograph whose longer side has at most `side` pixels.

        With 0 the photograph keeps its own size.
        """
        with opened_content(content, name) as image:
            rgb = to_rgb(image, name=name, white_level=self.reader.white_level)
        if side:
            rgb.thumbnail((side, side), Image.Resampling.BILINEAR)
        mask = replace(found, size=rgb.size).mask()
        return in_text(
            encoded(marked(np.array(rgb), found.anomaly_map, self.scale, mask=mask), "PNG")
        )


def map_picture(found: Inspection) -> MapPicture:
    """Return an anomaly map in 65,536 levels between its lowest and its highest value."""
    low, high = float(found.anomaly_map.min()), float(found.anomaly_map.max())
    level = (found.anomaly_map - low) / max(high - low, 1e-12) * 65_535
    picture = Image.fromarray(level.round().astype(np.uint16))
    return MapPicture(png=in_text(encoded(picture, "PNG")), low=low, high=high)
