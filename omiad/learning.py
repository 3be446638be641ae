"""What a detector learns of products: their look, their normal scores, patches of later ones."""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from omiad.calibration import calibrate, remember
from omiad.detector import Detector
from omiad.products import FOLDS, NormalScores, check_numbers, description

Positions = Mapping[str, Sequence[int]]
"""Positions of the photographs of each product."""

_BATCH_SIZE = 32


class Normals(NamedTuple):
    """What was measured on normal photographs of one product.

    Attributes:
        described: Descriptions (n, C).
        image: Image scores (n,).
        peak: Highest value of each anomaly map (n,).
    """

    described: Tensor
    image: Tensor
    peak: Tensor

    @property
    def scores(self) -> NormalScores:
        """Both scores of each photograph."""
        return NormalScores(self.image, self.peak)


@torch.no_grad()
def learn_products(
    detector: Detector, features: Dataset[Tensor], fitted: Positions, held_out: Positions
) -> None:
    """Learn what each product looks like, and how its normal photographs score.

    The scores are those of the photographs that were kept out of training. Of a product without
    such photographs they are those of the fitted ones, each scored with a memory of the others: the
    detector is calibrated `FOLDS` times, without a part of these photographs each time. The network
    has seen these photographs, so their scores may be a little too low.

    Args:
        detector: The detector, calibrated, on the device that computes.
        features: Raw features (C, h, w) of normal photographs, by position.
        fitted: Positions of the photographs of each product that training and calibration used.
        held_out: Positions of the photographs of products that were kept out of both.

    Raises:
        InputError: If a product has too few photographs.
    """

    def calibrate_on(judge: Detector, others: Positions) -> None:
        used = {name: others.get(name, own) for name, own in fitted.items()}
        calibrate(judge, features, {name: own for name, own in used.items() if own})

    crossed = {name: own for name, own in fitted.items() if not held_out.get(name)}
    scores = _cross_scores(detector, features, crossed, calibrate_on)
    _learn(detector, features, fitted, held_out, scores, detector.products.fit)


@torch.no_grad()
def add_products(
    detector: Detector, features: Dataset[Tensor], fitted: Positions, held_out: Positions
) -> None:
    """Add products that were not in training; nothing that the detector held before changes.

    Arguments and errors are those of `learn_products`, for the new products alone. The network has
    seen none of their photographs.
    """

    def remember_in(judge: Detector, others: Positions) -> None:
        remember(judge, features, others)

    crossed = {name: own for name, own in fitted.items() if not held_out.get(name)}
    scores = _cross_scores(detector, features, crossed, remember_in)
    remember(detector, features, fitted)
    _learn(detector, features, fitted, held_out, scores, detector.products.update)


@torch.no_grad()
def replace_products(detector: Detector, batches: Iterable[Tensor], shown: Sequence[str]) -> None:
    """Set the thresholds of products, and how they are recognised, from fresh photographs alone.

    Products that the photographs do not show stay as they are.

    Args:
        detector: The detector, calibrated, on the device that computes.
        batches: Raw features (B, C, h, w) of normal photographs that the model was not fitted to.
        shown: The product that each photograph shows.

    Raises:
        InputError: If a product has too few photographs.
    """
    normals = _measure(detector, batches, shown)
    replace = detector.products.update if detector.products.names else detector.products.fit
    replace(
        {name: each.described for name, each in normals.items()},
        {name: each.scores for name, each in normals.items()},
    )


def _learn(
    detector: Detector,
    features: Dataset[Tensor],
    fitted: Positions,
    held_out: Positions,
    scores: dict[str, NormalScores],
    learn: Callable[[dict[str, Tensor], dict[str, NormalScores]], None],
) -> None:
    """Describe all photographs, score those that were held out, and learn products from both."""
    described = {}
    for name, own in fitted.items():
        parts = [description(raw) for raw in _batches(detector, features, own)]
        if kept := held_out.get(name):
            batches = _batches(detector, features, kept)
            measured = _measure(detector, batches, [name] * len(kept))[name]
            parts.append(measured.described)
            scores[name] = measured.scores
        described[name] = torch.cat(parts)
    learn(described, scores)


def _cross_scores(
    detector: Detector,
    features: Dataset[Tensor],
    crossed: Positions,
    fit: Callable[[Detector, Positions], None],
) -> dict[str, NormalScores]:
    """Score photographs by detectors that `fit` lets remember other photographs only."""
    check_numbers({name: len(own) for name, own in crossed.items()})
    parts: dict[str, list[NormalScores]] = defaultdict(list)
    for fold in range(FOLDS if crossed else 0):
        judge = detector
        if detector.scoring.remembers:
            judge = copy.deepcopy(detector)
            others = {
                name: [p for i, p in enumerate(own) if i % FOLDS != fold]
                for name, own in crossed.items()
            }
            fit(judge, others)
        for name, own in crossed.items():
            asked = own[fold::FOLDS]
            batches = _batches(detector, features, asked)
            parts[name].append(_measure(judge, batches, [name] * len(asked))[name].scores)
    columns = {name: zip(*each, strict=True) for name, each in parts.items()}
    return {name: NormalScores(*map(torch.cat, each)) for name, each in columns.items()}


def _measure(
    detector: Detector, batches: Iterable[Tensor], shown: Sequence[str]
) -> dict[str, Normals]:
    """Describe and score photographs, each as one of the product that it shows."""
    parts: dict[str, list[Normals]] = defaultdict(list)
    start = 0
    for batch in batches:
        raw = batch.to(detector.map_range.device)
        names = shown[start : start + len(raw)]
        start += len(raw)
        for name in dict.fromkeys(names):
            own = raw[[i for i, each in enumerate(names) if each == name]]
            score, anomaly_map = detector.score_features(own, category=name)
            parts[name].append(Normals(description(own), score, anomaly_map.amax((1, 2))))
    columns = {name: zip(*each, strict=True) for name, each in parts.items()}
    return {name: Normals(*map(torch.cat, each)) for name, each in columns.items()}


def _batches(
    detector: Detector, features: Dataset[Tensor], positions: Sequence[int]
) -> Iterator[Tensor]:
    """Yield raw features (B, C, h, w) of photographs on the detector's device."""
    size = detector.extractor.tiling.at_once(_BATCH_SIZE)
    for start in range(0, len(positions), size):
        raw = torch.stack([features[i] for i in positions[start : start + size]])
        yield raw.to(detector.map_range.device)
