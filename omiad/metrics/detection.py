"""The figures of every category of a data set, and their means over categories."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from omiad.errors import InputError
from omiad.metrics.bounds import PIXEL_FIGURES, Interval
from omiad.metrics.estimators import SOURCE_ESTIMATORS
from omiad.metrics.histogram import MAX_BINS
from omiad.metrics.image_counts import ImageCounts
from omiad.metrics.images import IMAGE_FIGURES, ImageDetection, Images
from omiad.metrics.pixels import TOLERANCE, PixelDetection, is_finite
from omiad.types import Labels, Prediction

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
METRICS = IMAGE_METRICS + PIXEL_METRICS
FURTHER = tuple(name for name in (*IMAGE_FIGURES, *PIXEL_FIGURES) if name not in METRICS)
"""Figures beside the seven: operating points, and AU-PRO at tighter limits."""

MAX_PASSES = 5
"""Passes over the maps at most; each may use twice the bins of the one before."""

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Results:
    """Figures as fractions of 1, None where one is undefined.

    Attributes:
        categories: The seven metrics and their mean `mad` for each category.
        mean: Mean of each over the categories that have it; `mad` over those with all seven.
        n: Number of categories behind each mean.
        notes: For a category without some figures, or with less exact ones, why.
        further: The figures beside the seven for each category.
        further_mean: Mean of each over the categories that have it.
        bounds: How far each pixel figure of a category may be from the exact one.
        images: The images of each category with their scores.
        counts: The pixels of each of them, counted in a few bins.
    """

    categories: dict[str, Figures]
    mean: Figures
    n: dict[str, int]
    notes: dict[str, str] = field(default_factory=dict)
    further: dict[str, Figures] = field(default_factory=dict)
    further_mean: Figures = field(default_factory=dict)
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    images: dict[str, Images] = field(default_factory=dict)
    counts: dict[str, ImageCounts] = field(default_factory=dict)

    @property
    def bound(self) -> float:
        """Largest of the bounds."""
        return max((bound for row in self.bounds.values() for bound in row.values()), default=0.0)

    def as_record(self) -> dict[str, Any]:
        """Return the figures as plain data, for results.json."""
        return {
            "categories": self.categories,
            "mean": self.mean,
            "n": self.n,
            "notes": self.notes,
            "further": {"categories": self.further, "mean": self.further_mean},
            "bounds": self.bounds,
        }


class _Category:
    """The metrics of one category."""

    def __init__(self, max_bins: int) -> None:
        self.image, self.pixel = ImageDetection(), PixelDetection(max_bins=max_bins)
        self.image_figures: Figures = {}
        self.pixel_figures: dict[str, Interval | None] = {}

    def compute(self) -> None:
        """Take the figures of all processes; each must call it."""
        self.image_figures = self.image.compute()
        self.pixel_figures = self.pixel.compute()
        if not self.has_masks:
            self.pixel_figures = dict.fromkeys(PIXEL_FIGURES)

    @property
    def has_masks(self) -> bool:
        """Whether the labels of all pixels are known."""
        return bool(self.image.images.has_mask.all())

    def figures(self) -> Figures:
        values = {name: f and f.value for name, f in self.pixel_figures.items()}
        return self.image_figures | values

    def note(self) -> str | None:
        """Say why figures are missing or less exact than asked for, None if none is."""
        images = self.image.images
        if not images.is_anomalous.any():
            return "no defective test image: nothing to measure"
        reasons = []
        if images.is_anomalous.all():
            reasons.append("no normal test image: no image figures")
        if not self.has_masks:
            count = f"{(~images.has_mask).sum()} of {images.is_anomalous.sum()}"
            reasons.append(f"{count} defective test images have no mask: no pixel figures")
        elif None in self.pixel_figures.values():
            reasons.append("every mask is empty: no pixel figures")
        if not self.pixel.is_repeatable:
            reasons.append("maps changed from pass to pass: pixel figures are those of the first")
        return "; ".join(reasons) or None


class AnomalyMetrics:
    """The figures of every category of a data set, fed batch by batch in any order.

    The maps are counted and forgotten. Under torch.distributed each process feeds its share; an
    image that several of them were given counts once.

    Args:
        categories: Names of the categories, in the order of the results.
        tolerance: Largest error of a pixel figure, as a fraction of 1.
        max_bins: Most bins of a category in the first pass over the maps.
        source: Protocol whose own estimators of pixel figures to use; by default all are exact.

    Raises:
        InputError: If the tolerance is negative or no number, or a name cannot stand in results.
    """

    def __init__(
        self,
        categories: Sequence[str],
        *,
        tolerance: float = TOLERANCE,
        max_bins: int = MAX_BINS,
        source: str | None = None,
    ) -> None:
        if not tolerance >= 0:
            raise InputError(f"tolerance must not be negative, but got {tolerance}.")
        if "mean" in categories:
            raise InputError(
                "A category is called 'mean', as the row over all categories is. Rename its folder."
            )
        for name in categories:
            if name.encode(errors="ignore").decode() != name:
                raise InputError(f"The category {name!a} is not named in UTF-8. Rename its folder.")
        self._categories = {name: _Category(max_bins) for name in categories}
        self._tolerance = tolerance
        self._max_bins = max_bins
        self._source = source
        self._refined: list[str] | None = None

    def update(self, prediction: Prediction, labels: Labels, categories: Sequence[str]) -> None:
        """Add the predictions of a batch.

        Args:
            prediction: Scores (B,) and maps (B, H, W).
            labels: What is known about the images.
            categories: Name of each image's category (B).

        Raises:
            InputError: If a score is NaN or infinite.
        """
        prediction = Prediction(*(tensor.detach().cpu() for tensor in prediction))
        is_anomalous, masks, has_mask, index = (tensor.cpu() for tensor in labels)
        for name in dict.fromkeys(categories):
            if self._refined is not None and name not in self._refined:
                continue
            rows = torch.tensor([i for i, other in enumerate(categories) if other == name])
            category = self._categories[name]
            score, maps = (tensor[rows] for tensor in prediction)
            if not (is_finite(score) and is_finite(maps)):
                raise InputError(
                    f"A score of category '{name}' is NaN or infinite. Was the model trained in a "
                    f"precision its features overflow? Try --trainer.precision 32-true."
                )
            category.pixel.update(maps, masks[rows], index=index[rows])
            if self._refined is None:
                category.image.update(
                    score, is_anomalous[rows], has_mask=has_mask[rows], index=index[rows]
                )

    def compute(self, *, replay: Callable[[], None] | None = None) -> Results:
        """Return all figures and forget the predictions.

        Args:
            replay: Feeds the same batches to `update` once more; called while a figure's error
                may exceed the tolerance.
        """
        unsettled = list(self._categories)
        for number in range(1, MAX_PASSES + 1):
            for name in unsettled:
                self._categories[name].compute()
            if replay is None or number == MAX_PASSES:
                break
            unsettled = [
                name
                for name in unsettled
                if None not in self._categories[name].pixel_figures.values()
                and self._categories[name].pixel.refine(self._tolerance)
            ]
            if not unsettled:
                break
            self._refined = unsettled
            replay()
        self._refined = None
        for category in self._categories.values():
            category.pixel.images.share()
        results = self._results()
        self._categories = {name: _Category(self._max_bins) for name in self._categories}
        return results

    def _figures(self, category: _Category) -> Figures:
        figures = category.figures()
        if self._source is not None and figures["pixel_auroc"] is not None:
            estimates = SOURCE_ESTIMATORS[self._source](category.pixel.bins)
            figures |= estimates
            for name in estimates:
                del category.pixel_figures[name]  # they have no bound
        return figures

    def _results(self) -> Results:
        figures = {name: self._figures(category) for name, category in self._categories.items()}
        seven = {name: _pick(row, METRICS) for name, row in figures.items()}
        for row in seven.values():
            values = [value for value in row.values() if value is not None]
            row["mad"] = sum(values) / len(values) if len(values) == len(METRICS) else None
        further = {name: _pick(row, FURTHER) for name, row in figures.items()}
        mean, n = _mean(seven)
        reasons = {name: category.note() for name, category in self._categories.items()}
        return Results(
            categories=seven,
            mean=mean,
            n=n,
            notes={name: reason for name, reason in reasons.items() if reason is not None},
            further=further,
            further_mean=_mean(further)[0],
            bounds={
                name: {k: f.bound for k, f in category.pixel_figures.items() if f is not None}
                for name, category in self._categories.items()
            },
            images={name: category.image.images for name, category in self._categories.items()},
            counts={name: category.pixel.images for name, category in self._categories.items()},
        )


def _pick(figures: Figures, names: Sequence[str]) -> Figures:
    return {name: figures[name] for name in names}


def _mean(categories: dict[str, Figures]) -> tuple[Figures, dict[str, int]]:
    """Return the mean of each figure over the categories that have it, and how many those are."""
    mean: Figures = {}
    n: dict[str, int] = {}
    for key in dict.fromkeys(key for row in categories.values() for key in row):
        values = [value for row in categories.values() if (value := row[key]) is not None]
        n[key] = len(values)
        mean[key] = sum(values) / len(values) if values else None
    return mean, n
