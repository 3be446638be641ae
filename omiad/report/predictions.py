"""A page of photographs that were scored, the most anomalous first."""

import heapq
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from omiad.errors import InputError
from omiad.report.page import Section, gallery_markup, write_page
from omiad.report.panels import Map, Pixels, scaled
from omiad.report.pictures import SIDES, Album, map_picture, thumbnail

_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


class PredictionPage:
    """Keeps the most anomalous photographs while they are scored, within a size.

    Args:
        folder: Where the page goes.
        scale: Scores drawn as darkest and brightest.
        max_megabytes: Most that all pictures may take.

    Raises:
        InputError: If that is not above 0.
    """

    def __init__(self, folder: Path, *, scale: tuple[float, float], max_megabytes: float) -> None:
        if not max_megabytes > 0:
            raise InputError(f"--max_megabytes must be above 0, but got {max_megabytes:g}.")
        self._folder, self._scale = folder, scale
        self._max_megabytes = max_megabytes
        self._size = self._num_scored = 0
        self._kept: list[tuple[float, int, dict[str, Any]]] = []
        self._number = count()

    def add(self, name: str, *, path: Path, pixels: Pixels, anomaly_map: Map, score: float) -> None:
        """Add a photograph; where the page is full the least anomalous one goes.

        Args:
            name: Its path below the folder of photographs.
            path: The file.
            pixels: What the model saw (S, S, 3), uint8.
            anomaly_map: Its pixel scores (S, S).
            score: Its image score.
        """
        photo = thumbnail(Image.fromarray(pixels), SIDES["embedded"])
        heat_map = map_picture(_levels(anomaly_map, self._scale))
        entry = {"name": name, "photo": photo, "map": heat_map, "aspect": _aspect(path)}
        self._num_scored += 1
        self._size += _size(entry)
        heapq.heappush(self._kept, (score, -next(self._number), entry))
        while self._size > self._max_megabytes * 1e6:
            self._size -= _size(heapq.heappop(self._kept)[2])

    def write(self) -> Path:
        """Write index.html and return where it is."""
        album = Album(self._folder, where="embedded", max_megabytes=2 * self._max_megabytes)
        images = []
        for score, _, entry in sorted(self._kept, key=lambda kept: kept[:2], reverse=True):
            photo, heat_map = (
                album.take((entry["photo"], "jpg"), (entry["map"], "jpg")) or (None,) * 2
            )
            folder, slash, _ = entry["name"].rpartition("/")
            images.append({
                "name": entry["name"], "category": folder if slash else "photographs",
                "defect": "", "aspect": entry["aspect"], "photo": photo, "mask": None,
                "has_mask": False,
                "runs": [{"score": score, "outcome": "not judged", "wrongness": 0, "map": heat_map,
                          "reconstruction": None}],
            })  # fmt: skip
        shown = (
            f"All {self._num_scored} photographs."
            if len(images) == self._num_scored
            else f"The {len(images)} most anomalous of {self._num_scored} photographs: the "
            f"pictures of a page may take {self._max_megabytes:g} MB (--max_megabytes)."
        )
        about = (
            f"<p>{escape(shown)} The higher a score, the more anomalous; scores have no fixed "
            "range. predictions.csv has all of them.</p>"
        )
        path = self._folder / "index.html"
        write_page(
            path,
            title="Predictions",
            lead="",
            sections=[
                Section(
                    "images", "Photographs", gallery_markup(about, [("the model", self._scale)])
                )
            ],
            gallery={
                "judged": False,
                "runs": [{"name": "anomaly map", "thresholds": {}}],
                "references": {},
                "images": images,
            },
        )
        return path


def _levels(anomaly_map: Map, scale: tuple[float, float]) -> NDArray[np.uint8]:
    level = Image.fromarray((scaled(anomaly_map, scale) * 255).round().astype(np.uint8))
    level.thumbnail((128, 128), Image.Resampling.BOX)
    return np.array(level)


def _size(entry: dict[str, Any]) -> int:
    """Return about how many bytes an entry takes in a page."""
    return 4 * (len(entry["photo"]) + len(entry["map"])) // 3 + 200


def _aspect(path: Path) -> float:
    """Return width by height of a photograph that has been read."""
    with Image.open(path) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width, height = height, width
    return round(width / height, 4)
