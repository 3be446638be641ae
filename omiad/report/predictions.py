"""The page of `omiad predict`: photographs with their scores, the most anomalous first."""

import heapq
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from omiad.errors import InputError
from omiad.report.page import write_page
from omiad.report.panels import Map, Pixels, scaled
from omiad.report.pictures import SIDES, Album, map_picture, thumbnail

_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


class PredictionPage:
    """Keeps the most anomalous photographs that fit into a page while they are scored.

    Args:
        folder: Folder of the page.
        scale: Scores to draw darkest and brightest.
        max_megabytes: Limit of all pictures together, in 10**6 bytes.

    Raises:
        InputError: If the limit is not above 0.
    """

    def __init__(self, folder: Path, *, scale: tuple[float, float], max_megabytes: float) -> None:
        if not max_megabytes > 0:
            raise InputError(f"--max_megabytes must be above 0, but got {max_megabytes:g}.")
        self._folder, self._scale = folder, scale
        self._max_megabytes = max_megabytes
        self._num_bytes = self._num_scored = 0
        self._kept: list[tuple[float, int, dict[str, Any]]] = []

    def add(self, name: str, *, path: Path, pixels: Pixels, anomaly_map: Map, score: float) -> None:
        """Add a photograph; if the page is full, the least anomalous one is dropped.

        Args:
            name: Path of the photograph below the folder of all photographs.
            path: The file.
            pixels: The image that the model saw (S, S, 3), uint8.
            anomaly_map: Its pixel scores (S, S).
            score: Its image score.
        """
        level = (scaled(anomaly_map, self._scale) * 255).round().astype(np.uint8)
        small = Image.fromarray(level)
        small.thumbnail((128, 128), Image.Resampling.BOX)
        entry = {
            "name": name,
            "category": name.rpartition("/")[0] or "photographs",
            "defect": "",
            "aspect": _aspect(path),
            "photo": thumbnail(Image.fromarray(pixels), SIDES["embedded"]),
            "map": map_picture(np.array(small)),
        }
        self._num_bytes += _num_bytes(entry)
        heapq.heappush(self._kept, (score, -self._num_scored, entry))
        self._num_scored += 1
        while self._num_bytes > self._max_megabytes * 1e6:
            self._num_bytes -= _num_bytes(heapq.heappop(self._kept)[2])

    def write(self) -> Path:
        """Write index.html and return its path."""
        album = Album(self._folder, where="embedded", max_megabytes=2 * self._max_megabytes)
        images = []
        for score, _, entry in sorted(self._kept, key=lambda kept: kept[:2], reverse=True):
            pictures = album.take((entry.pop("photo"), "jpg"), (entry.pop("map"), "jpg"))
            photo, heat_map = pictures or (None, None)
            found = {"score": score, "outcome": "not judged", "wrongness": 0, "map": heat_map}
            images.append({**entry, "photo": photo, "runs": [found]})
        shown = (
            f"All {self._num_scored} photographs."
            if len(images) == self._num_scored
            else f"The {len(images)} most anomalous of {self._num_scored} photographs: the "
            f"pictures of a page may take {self._max_megabytes:g} MB (--max_megabytes)."
        )
        path = self._folder / "index.html"
        write_page(
            path,
            title="Predictions",
            sections={"images": "Photographs"},
            lead="",
            about=f"{shown} A higher score is more anomalous; scores have no fixed range. "
            "predictions.csv lists all of them.",
            warnings=[],
            scales=[(0, "the model", *self._scale)],
            gallery={
                "judged": False,
                "runs": [{"name": "anomaly map", "thresholds": {}}],
                "references": {},
                "images": images,
            },
        )
        return path


def _num_bytes(entry: dict[str, Any]) -> int:
    """Return about how many bytes an entry takes in a page."""
    return 4 * (len(entry["photo"]) + len(entry["map"])) // 3 + 200


def _aspect(path: Path) -> float:
    """Return width divided by height of a photograph, as it is shown."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width, height = height, width
    return round(width / height, 4)
