"""The page of `omiad predict`: photographs with their scores, the most anomalous first."""

import heapq
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omiad.data.opening import opened, upright_size
from omiad.report.page import write_page
from omiad.report.pictures import Map, Pixels, address, map_picture, scaled, thumbnail, to_bytes


class PredictionPage:
    """Keeps the most anomalous photographs that fit into a page while they are scored.

    The scale goes from the darkest to the brightest score. All pictures together have a limit, in
    megabytes of 10**6 bytes.
    """

    def __init__(self, folder: Path, *, scale: tuple[float, float], max_megabytes: float) -> None:
        self._folder, self._scale = folder, scale
        self._max_megabytes, self._num_bytes_left = max_megabytes, to_bytes(max_megabytes)
        self._num_scored = 0
        self._kept: list[tuple[float, int, int, dict[str, Any]]] = []

    def add(self, name: str, *, path: Path, pixels: Pixels, anomaly_map: Map, score: float) -> None:
        """Add a photograph; if the page is full, the least anomalous one is dropped.

        The name is the path of the file below the folder of all photographs, and the pixels
        (S, S, 3), uint8, are those that the model saw.
        """
        level = (scaled(anomaly_map, self._scale) * 255).round().astype(np.uint8)
        small = Image.fromarray(level)
        small.thumbnail((128, 128), Image.Resampling.BOX)
        photo = address(thumbnail(Image.fromarray(pixels)))
        drawn = address(map_picture(np.array(small)))
        entry = {
            "name": name,
            "category": name.rpartition("/")[0] or "photographs",
            "defect": "",
            "aspect": _aspect(path),
            "photo": photo,
            "runs": [{"score": score, "outcome": "not judged", "wrongness": 0, "map": drawn}],
        }
        size = len(photo) + len(drawn)
        heapq.heappush(self._kept, (score, -self._num_scored, size, entry))
        self._num_scored += 1
        self._num_bytes_left -= size
        while self._num_bytes_left < 0:
            self._num_bytes_left += heapq.heappop(self._kept)[2]

    def write(self) -> Path:
        """Write index.html and return its path."""
        kept = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        path = self._folder / "index.html"
        write_page(
            path,
            title="Predictions",
            lead="",
            sections={"photographs": "Photographs"},
            num_scored=self._num_scored,
            max_megabytes=self._max_megabytes,
            scales=[(0, "the model", *self._scale)],
            gallery={
                "judged": False,
                "runs": [{"name": "anomaly map", "thresholds": {}}],
                "references": {},
                "images": [entry for *_, entry in kept],
            },
        )
        return path


def _aspect(path: Path) -> float:
    """Return width divided by height of a photograph, as its EXIF orientation shows it."""
    with opened(path) as image:
        width, height = upright_size(image)
    return round(width / height, 4)
