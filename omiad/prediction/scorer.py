"""Photographs to rows: each photograph is read, scored and drawn."""

import re
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from omiad.data.images import read_image
from omiad.detector import Detector
from omiad.errors import InputError, NotFiniteError
from omiad.files import whole_file
from omiad.prediction.journal import Row
from omiad.prediction.photographs import Photograph
from omiad.progress import track
from omiad.report import overlay, page_entry
from omiad.report.pictures import Map, Pixels

OVERLAYS = "overlays"
"""Name of the folder of the overlays."""


class Scored(NamedTuple):
    """Pixels (H, W, 3) as the model saw them, anomaly map (H, W), and image score."""

    pixels: Pixels
    anomaly_map: Map
    score: float


class Scorer:
    """Scores photographs in batches, and draws an overlay of each.

    Args:
        detector: The model.
        folder: Folder of the predictions.
        batch_size: Photographs scored at once.
    """

    def __init__(self, detector: Detector, *, folder: Path, batch_size: int) -> None:
        self._detector, self._folder, self._batch_size = detector, folder, batch_size
        self._scale: list[float] = detector.map_range.tolist()

    def rows(self, photographs: Sequence[Photograph], *, first: int) -> Generator[Row, None, None]:
        """Yield the rows of the photographs from number `first` on, each with its overlay written.

        The batches are those of a run from the beginning, so that rounding changes no score.

        Raises:
            InputError: If a score is not finite, or if the disk is full.
        """
        size = self._batch_size
        for start in track(
            range(first - first % size, len(photographs), size), "predict", unit="batch"
        ):
            batch = photographs[start : start + size]
            for number, result in enumerate(self._results(batch), start):
                if number >= first:
                    yield self._row(number, photographs[number], result)

    def _results(self, batch: Sequence[Photograph]) -> list[Scored | str]:
        """Return what was found in each photograph, or a sentence about why it is unreadable."""
        images: dict[int, Tensor] = {}
        extractor = self._detector.extractor
        results: list[Scored | str] = [photograph.fault for photograph in batch]
        for i, photograph in enumerate(batch):
            if not photograph.fault:
                try:
                    images[i] = read_image(
                        *(photograph.path, extractor.image_size),
                        tiles=extractor.tiling.tiles,
                        white_level=extractor.white_level,
                    )
                except InputError as error:
                    results[i] = str(error)
        if images:
            stacked = torch.stack([*images.values()])
            try:
                scores, maps = self._detector(stacked.to(self._detector.map_range.device))
            except NotFiniteError as error:
                path = batch[[*images][error.index]].path
                raise InputError(f"'{path}' has no score. {error}") from error
            pixels = stacked.permute(0, 2, 3, 1).numpy()
            found = zip(pixels, maps.cpu().numpy(), scores.tolist(), strict=True)
            for i, scored in zip(images, map(Scored._make, found), strict=True):
                results[i] = scored
        return results

    def _row(self, number: int, photograph: Photograph, result: Scored | str) -> Row:
        image = str(photograph.path)
        if isinstance(result, str):
            return Row(image=image, score=None, overlay="", error=result, entry=None)
        drawn = Path(OVERLAYS, _overlay_name(number, photograph.path))
        (self._folder / OVERLAYS).mkdir(exist_ok=True)
        with whole_file(self._folder / drawn, sync=False) as temporary:
            overlay(result.pixels, result.anomaly_map, self._scale).save(temporary, "PNG")
        entry = page_entry(
            photograph.name, path=photograph.path, **result._asdict(), scale=self._scale
        )
        return Row(image=image, score=result.score, overlay=drawn.as_posix(), error="", entry=entry)


def _overlay_name(number: int, path: Path) -> str:
    """Return a name that no other photograph has, and that every file system takes."""
    return f"{number + 1:06}_{re.sub(r'[^0-9A-Za-z._-]', '_', path.stem)[:80]}.png"
