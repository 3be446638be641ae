"""How far every export of a model is from the model, over all photographs below a folder."""

from collections.abc import Mapping

from torch import Tensor

from omiad import Detector
from omiad.export.comparison import Comparison, compare, read_photographs
from omiad.prediction.photographs import find_photographs
from omiad.progress import track
from omiad.runtimes.sessions import Run

MASKS = "ground_truth"
"""Folder of masks, which are no photographs."""


def parity(
    detector: Detector, runs: Mapping[str, Run], photos: str, *, every: int
) -> dict[str, Comparison]:
    """Compare every graph with the model on every so many photographs.

    Decisions that differ on a tie with a threshold do not count; see `compare`.
    """
    files = [each for each in find_photographs([photos]) if MASKS not in each.path.parts][::every]
    chosen = read_photographs(detector, files)
    assess = detector.assess_images
    found: dict[str, list[Comparison]] = {name: [] for name in runs}
    for photograph in track(chosen, "parity", total=len(files)):
        answer = assess(photograph.pixels[None], None)
        detector.assess_images = lambda *_, answer=answer: answer  # the model scores each once
        for name, run in runs.items():
            found[name].append(compare(detector, run, [photograph], tolerance=float("inf")))
    del detector.assess_images
    return {name: _joined(each) for name, each in found.items()}


def normal_photographs(detector: Detector, photos: str, *, most: int) -> list[Tensor]:
    """Return normal photographs of the training (3, S, S), spread over all of them."""
    files = [each for each in find_photographs([photos]) if "train" in each.path.parts]
    return [each.pixels for each in read_photographs(detector, files[:: len(files) // most + 1])]


def _joined(parts: list[Comparison]) -> Comparison:
    return Comparison(
        compared=sum(part.compared for part in parts),
        score=max(part.score for part in parts),
        anomaly_map=max(part.anomaly_map for part in parts),
        unlike=[each for part in parts for each in part.unlike],
    )
