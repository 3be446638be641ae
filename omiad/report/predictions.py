"""The page of `omiad predict`: photographs with their scores, the most anomalous first."""

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omiad.data.opening import opened, upright_size
from omiad.errors import InputError
from omiad.report.page import write_page
from omiad.report.pictures import Map, Pixels, address, map_picture, scaled, thumbnail, to_bytes

Entry = dict[str, Any]
"""What the page knows about a photograph, as plain data."""


def page_entry(
    name: str, *, path: Path, pixels: Pixels, anomaly_map: Map, score: float, scale: Sequence[float]
) -> Entry:
    """Return what a page shows of a photograph.

    The name is the path of the file below the folder of all photographs, and the pixels (H, W, 3),
    uint8, are those that the model saw. The scale goes from the darkest to the brightest score.
    """
    level = (scaled(anomaly_map, scale) * 255).round().astype(np.uint8)
    small = Image.fromarray(level)
    small.thumbnail((128, 128), Image.Resampling.BOX)
    drawn = address(map_picture(np.array(small)))
    return {
        "name": name,
        "category": name.rpartition("/")[0] or "photographs",
        "defect": "",
        "aspect": _aspect(path),
        "photo": address(thumbnail(Image.fromarray(pixels))),
        "runs": [{"score": score, "outcome": "not judged", "wrongness": 0, "map": drawn}],
    }


class PredictionPage:
    """Keeps the most anomalous photographs that fit into a page while they are scored.

    All pictures together have a limit, in megabytes of 10**6 bytes.
    """

    def __init__(self, folder: Path, *, max_megabytes: float) -> None:
        self._folder = folder
        self._max_megabytes, self._num_bytes_left = max_megabytes, to_bytes(max_megabytes)
        self._kept: list[tuple[float, int, int, Entry]] = []

    def add(self, number: int, entry: Entry) -> bool:
        """Add a photograph, whose number orders equal scores; return whether it changed the page.

        If the page is full, the least anomalous photographs are dropped.
        """
        score = entry["runs"][0]["score"]
        size = len(entry["photo"]) + len(entry["runs"][0]["map"])
        item = (score, -number, size, entry)
        heapq.heappush(self._kept, item)
        self._num_bytes_left -= size
        dropped = []
        while self._num_bytes_left < 0:
            dropped.append(heapq.heappop(self._kept))
            self._num_bytes_left += dropped[-1][2]
        return dropped != [item]

    def write(self, *, num_scored: int, scale: Sequence[float]) -> Path:
        """Write index.html and return its path."""
        kept = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        path = self._folder / "index.html"
        write_page(
            path,
            title="Predictions",
            lead="",
            sections={"photographs": "Photographs"},
            num_scored=num_scored,
            max_megabytes=self._max_megabytes,
            scales=[(0, "the model", *scale)],
            gallery={
                "judged": False,
                "runs": [{"name": "anomaly map", "thresholds": {}}],
                "references": {},
                "images": [entry for *_, entry in kept],
            },
        )
        return path


def _aspect(path: Path) -> float:
    """Return width divided by height of an upright photograph; 1 if the file is gone."""
    try:
        with opened(path) as image:
            width, height = upright_size(image)
    except InputError:
        return 1.0
    return round(width / height, 4)
