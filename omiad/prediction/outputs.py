"""What is written about one photograph: its row, overlay, mask and anomaly map."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from omiad.errors import InputError
from omiad.files import whole_file
from omiad.inspection import Decision, Inspection
from omiad.photographs import load_image
from omiad.prediction.journal import Row
from omiad.prediction.photographs import Photograph
from omiad.prediction.scorer import Scored
from omiad.report import marked, page_entry

Overlays = Literal["defects", "all", "none"]

_DRAWN = {"defects": ("defect", "not calibrated"), "all": get_args(Decision), "none": ()}
"""Decisions whose photographs get an overlay. The map of an unknown product has no meaning."""

FOLDERS = ("overlays", "masks", "maps")
"""Folders of pictures below that of the predictions."""

_WIDEST = 65_500
"""Most pixels of a side that a JPEG file can have."""


@dataclass(frozen=True)
class Outputs:
    """Writes what a user asked for about each photograph.

    Attributes:
        folder: Folder of the predictions.
        scale: Scores of the darkest and of the brightest colour of an overlay.
        white_level: Level of the photographs' white, see `read_image`.
        overlays: Which photographs get an overlay.
        masks: Whether each photograph gets a mask.
        maps: Whether the anomaly map of each photograph is written.
    """

    folder: Path
    scale: Sequence[float]
    white_level: int
    overlays: Overlays = "defects"
    masks: bool = False
    maps: bool = False

    def row(self, number: int, photograph: Photograph, result: Scored | str) -> Row:
        """Write the files of a photograph, whose number no other one has, and return its row.

        Raises:
            InputError: If the disk is full.
        """
        row = _row(photograph, result)
        if isinstance(result, str):
            return row
        found = result.inspection
        stem = f"{number + 1:06}_{re.sub(r'[^0-9A-Za-z._-]', '_', photograph.path.stem)[:80]}"
        if found.decision in _DRAWN[self.overlays]:
            row["overlay"] = self._overlay(stem, photograph, found)
        if self.masks:
            mask = Image.fromarray(found.mask() * np.uint8(255))
            row["mask"] = self._written(f"masks/{stem}.png", lambda path: mask.save(path, "PNG"))
        if self.maps:
            row["map"] = self._written(f"maps/{stem}.npy", lambda path: _save(path, found))
        row["entry"] = page_entry(photograph.name, **result._asdict(), scale=self.scale)
        return row

    def _overlay(self, stem: str, photograph: Photograph, found: Inspection) -> str:
        """Draw the overlay at the photograph's own size, for which the file is read once more."""
        try:
            pixels = load_image(photograph.path, white_level=self.white_level)
        except InputError:  # the file has gone since it was scored
            return ""
        if pixels.shape[1::-1] != found.size:  # or it is another one
            return ""
        picture = marked(pixels, found.anomaly_map, self.scale, mask=found.mask())
        if max(picture.size) > _WIDEST:
            return self._written(f"overlays/{stem}.png", lambda path: picture.save(path, "PNG"))
        return self._written(
            f"overlays/{stem}.jpg", lambda path: picture.save(path, "JPEG", quality=90)
        )

    def _written(self, name: str, write: Callable[[Path], None]) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with whole_file(path, sync=False) as temporary:
            write(temporary)
        return name


def _save(path: Path, found: Inspection) -> None:
    with path.open("wb") as file:  # numpy would add a suffix to the path
        np.save(file, found.anomaly_map)


def _row(photograph: Photograph, result: Scored | str) -> Row:
    """Return the row of a photograph without the files that are written about it."""
    row = Row(
        image=str(photograph.path),
        stamp=[*photograph.stamp],
        product=None,
        score=None,
        p_value=None,
        threshold=None,
        decision="unreadable",
        regions=[],
        overlay="",
        mask="",
        map="",
        error="",
        entry=None,
    )
    if isinstance(result, str):
        return {**row, "error": result}
    found = result.inspection
    return {
        **row,
        "product": found.category,
        "score": found.score,
        "p_value": found.p_value,
        "threshold": found.threshold.image if found.threshold else None,
        "decision": found.decision,
        "regions": [[*region.box, region.area] for region in found.regions],
    }
