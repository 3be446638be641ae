"""The page of `omiad predict`: photographs with their scores, the worst first."""

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from omiad.inspection import Inspection
from omiad.report.page import write_page
from omiad.report.pictures import Pixels, address, map_picture, scaled, thumbnail, to_bytes


class Verdict(TypedDict):
    """What the model says of a photograph; the map is a picture in base64."""

    score: float
    p_value: float | None
    threshold: float | None
    outcome: str
    wrongness: float
    map: str


class Entry(TypedDict):
    """What the page knows about a photograph, as plain data; the photo is a picture in base64."""

    name: str
    category: str
    defect: str
    aspect: float
    boxes: list[list[float]]
    photo: str
    run: Verdict


ORDER = ("defect", "unknown product", "not calibrated", "ok", "unreadable")
"""Decisions, those that ask for a person first."""


def page_entry(
    name: str, *, pixels: Pixels, inspection: Inspection, scale: Sequence[float]
) -> Entry:
    """Return what a page shows of a photograph.

    The name is the path of the file below the folder of all photographs, and the pixels (H, W, 3),
    uint8, are those that the model saw. The scale goes from the darkest to the brightest score.
    """
    level = (scaled(inspection.anomaly_map, scale) * 255).round().astype(np.uint8)
    small = Image.fromarray(level)
    small.thumbnail((128, 128), Image.Resampling.BOX)
    width, height = inspection.size
    sides = np.array([width, height, width, height])
    return {
        "name": name,
        "category": inspection.category or "unknown",
        "defect": name.rpartition("/")[0] or "photographs",
        "aspect": round(width / height, 4),
        "boxes": [(region.box / sides).round(4).tolist() for region in inspection.regions],
        "photo": address(thumbnail(Image.fromarray(pixels))),
        "run": {
            "score": inspection.score,
            "p_value": inspection.p_value,
            "threshold": inspection.threshold.image if inspection.threshold else None,
            "outcome": inspection.decision,
            "wrongness": _badness(inspection),
            "map": address(map_picture(np.array(small))),
        },
    }


def _badness(inspection: Inspection) -> float:
    """Return what orders photographs of different products: the score divided by the threshold.

    A photograph of an unknown product comes between those with a defect and those without.
    """
    if inspection.decision == "unknown product":
        return 1.0
    limit = inspection.threshold.image if inspection.threshold else 1.0
    return inspection.score / max(limit, 1e-12)


def counted(decisions: Mapping[str, int]) -> str:
    """Return how many photographs have which decision, such as "3 defect, 40 ok"."""
    return ", ".join(f"{decisions[name]} {name}" for name in ORDER if decisions.get(name))


class PredictionPage:
    """Keeps the most anomalous photographs that fit into a page while they are scored.

    All pictures together have a limit, in megabytes of 10**6 bytes.
    """

    def __init__(self, folder: Path, *, max_megabytes: float) -> None:
        self._folder = folder
        self._max_megabytes, self._num_bytes_left = max_megabytes, to_bytes(max_megabytes)
        self._kept: list[tuple[float, int, int, Entry]] = []

    def add(self, number: int, entry: Entry) -> bool:
        """Add a photograph, whose number orders equal ones; return whether it changed the page.

        If the page is full, the least anomalous photographs are dropped.
        """
        size = len(entry["photo"]) + len(entry["run"]["map"])
        item = (entry["run"]["wrongness"], -number, size, entry)
        heapq.heappush(self._kept, item)
        self._num_bytes_left -= size
        dropped = []
        while self._num_bytes_left < 0:
            dropped.append(heapq.heappop(self._kept))
            self._num_bytes_left += dropped[-1][2]
        return dropped != [item]

    def write(self, *, decisions: Mapping[str, int], scale: Sequence[float]) -> Path:
        """Write index.html and return its path; `decisions` counts all photographs."""
        kept = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        path = self._folder / "index.html"
        write_page(
            path,
            title="Predictions",
            lead=counted(decisions),
            sections={"photographs": "Photographs"},
            num_scored=sum(decisions.values()) - decisions.get("unreadable", 0),
            is_judged=not decisions.get("not calibrated"),
            max_megabytes=self._max_megabytes,
            scales=[(0, "the model", *scale)],
            gallery={
                "judged": False,
                "runs": [{"name": "anomaly map", "thresholds": {}}],
                "references": {},
                "images": [{**entry, "runs": [entry["run"]]} for *_, entry in kept],
            },
        )
        return path
