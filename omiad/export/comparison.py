"""An export against the model that it was made from, photograph by photograph."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omiad.detector import Detector
from omiad.errors import InputError
from omiad.inspection import DECISIONS
from omiad.photographs import read_photograph
from omiad.prediction.photographs import Photograph as Found
from omiad.runtimes.sessions import Run

TOLERANCE = 1e-4
"""Relative difference of scores that rounding explains."""

_COARSENESS = (1, 8, 64)
"""Sides in pixels of the patches of synthetic photographs."""


class Photograph(NamedTuple):
    """A photograph to compare by: its name, its pixels (3, S, S), and its product, if given."""

    name: str
    pixels: Tensor
    category: str | None


class Unlike(NamedTuple):
    """A photograph about which an export and its model disagree."""

    photograph: Photograph
    reason: str


class Comparison(NamedTuple):
    """How much an export differs from its model.

    Attributes:
        compared: Number of photographs.
        score: Largest difference of a score, relative to the model's score.
        anomaly_map: Largest difference of a pixel, relative to the highest value of its map.
        unlike: Photographs with other decisions, or with scores outside the tolerance.
    """

    compared: int
    score: float
    anomaly_map: float
    unlike: list[Unlike]


@torch.no_grad()
def compare(
    detector: Detector, run: Run, photographs: Iterable[Photograph], *, tolerance: float
) -> Comparison:
    """Compare a graph with the detector that it was traced from.

    The threshold of a product is the score of one of its normal photographs. Rounding may put that
    photograph on either side, so a decision counts as another one only if the detector's score is
    not within `TOLERANCE` of the threshold.

    Args:
        detector: The detector.
        run: The graph.
        photographs: Photographs, read when they are needed.
        tolerance: Largest relative difference of scores.
    """
    judge = detector.judge(None, None)
    limits = [each.image for each in detector.products.thresholds(detector.false_alarms)]
    count, worst_score, worst_map, unlike = 0, 0.0, 0.0, []
    for photograph in photographs:
        image = photograph.pixels[None]
        scores, maps, shown = detector.assess_images(image, photograph.category)
        decision, product = int(judge.verdict(scores, shown).decision), int(shown)
        given = -1 if photograph.category is None else detector.products.number(photograph.category)
        outputs = run(image.numpy(), np.array([given]))
        score, found = float(scores), float(outputs["score"][0])
        difference = abs(found - score) / max(abs(score), 1e-12)
        highest = max(float(maps.abs().max()), 1e-12)
        worst_map = max(
            worst_map, float(np.abs(outputs["anomaly_map"] - maps.numpy()).max()) / highest
        )
        worst_score, count = max(worst_score, difference), count + 1
        is_tie = product >= 0 and abs(score - limits[product]) <= TOLERANCE * abs(limits[product])
        decided = int(outputs["decision"][0])
        if int(outputs["product"][0]) != product or (decided != decision and not is_tie):
            words = f"'{DECISIONS[decided]}' instead of '{DECISIONS[decision]}'"
            unlike.append(Unlike(photograph, f"the decision is {words}"))
        elif not difference <= tolerance:
            words = f"the score is {found:.6g} instead of {score:.6g} ({difference:.1e} relative)"
            unlike.append(Unlike(photograph, words))
    return Comparison(count, worst_score, worst_map, unlike)


def read_photographs(detector: Detector, found: Iterable[Found]) -> Iterator[Photograph]:
    """Read photographs for a detector, each when it is taken.

    Raises:
        InputError: If one cannot be read.
    """
    extractor = detector.extractor
    for path, name, _, fault in found:
        if fault:
            raise InputError(fault)
        pixels, _ = read_photograph(
            Path(path), extractor.image_size, white_level=extractor.white_level
        )
        yield Photograph(f"'{name}'", pixels, None)


def synthetic_photographs(detector: Detector) -> Iterator[Photograph]:
    """Yield coloured noise, recognised and as each of the products."""
    side, generator = detector.extractor.image_size, np.random.default_rng(0)
    for coarseness in _COARSENESS:
        small = max(1, side // coarseness)
        noise = generator.integers(0, 256, (small, small, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        for category in (None, *detector.products.names):
            yield Photograph(f"noise of {coarseness} pixels", pixels, category)
