"""The page of `omiad predict`: photographs with their scores, the most anomalous first."""

import heapq
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from omiad.report.page import write_page
from omiad.report.pictures import (
    SIDES,
    Map,
    Pixels,
    address,
    map_picture,
    scaled,
    thumbnail,
    to_bytes,
)


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
        self._folder, self._scale = folder, scale
        self._max_megabytes, self._num_bytes_left = max_megabytes, to_bytes(max_megabytes)
        self._num_scored = 0
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
            "photo": address(thumbnail(Image.fromarray(pixels), SIDES["embedded"])),
            "runs": [
                {
                    "score": score,
                    "outcome": "not judged",
                    "wrongness": 0,
                    "map": address(map_picture(np.array(small))),
                }
            ],
        }
        self._num_bytes_left -= _num_bytes(entry)
        heapq.heappush(self._kept, (score, -self._num_scored, entry))
        self._num_scored += 1
        while self._num_bytes_left < 0:
            self._num_bytes_left += _num_bytes(heapq.heappop(self._kept)[2])

    def write(self) -> Path:
        """Write index.html and return its path."""
        kept = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        shown = (
            f"All {self._num_scored} photographs."
            if len(kept) == self._num_scored
            else f"The {len(kept)} most anomalous of {self._num_scored} photographs: the "
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
                "images": [entry for *_, entry in kept],
            },
        )
        return path


def _num_bytes(entry: dict[str, Any]) -> int:
    return len(entry["photo"]) + len(entry["runs"][0]["map"])


def _aspect(path: Path) -> float:
    """Return width divided by height of a photograph, as its EXIF orientation shows it."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in range(5, 9):
            width, height = height, width
    return round(width / height, 4)
