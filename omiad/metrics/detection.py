"""The figures of every category of a data set, and their means over categories."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torchmetrics import Metric

from omiad.errors import InputError
from omiad.metrics.category import CategoryMetrics
from omiad.metrics.histogram import MAX_BINS
from omiad.metrics.image_counts import ImageCounts
from omiad.metrics.images import Images
from omiad.metrics.pixels import TOLERANCE
from omiad.metrics.ranking import Figures
from omiad.types import Labels, Prediction

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
METRICS = IMAGE_METRICS + PIXEL_METRICS


class Results(NamedTuple):
    """Figures as fractions of 1, None where a figure is undefined.

    Attributes:
        categories: The seven metrics of each category and `mad`, their mean.
        mean: Mean of each over the categories that have it; of `mad` over those with all seven.
        n: Number of categories behind each mean.
        notes: Why figures of a category are missing or less exact.
        vanished: Regions and whole masks of a category that are too small for the size of the maps.
        further: The figures besides the seven of each category.
        further_mean: Mean of each over the categories that have it.
        bounds: Largest error of each pixel figure of a category.
        images: The images of each category with their scores.
        counts: The pixels of each of these images, counted in a few bins.
    """

    categories: dict[str, Figures]
    mean: Figures
    n: dict[str, int]
    notes: dict[str, str]
    vanished: dict[str, dict[str, int]]
    further: dict[str, Figures]
    further_mean: Figures
    bounds: dict[str, dict[str, float]]
    images: dict[str, Images]
    counts: dict[str, ImageCounts]

    @property
    def bound(self) -> float:
        """Largest of the bounds."""
        return max((bound for row in self.bounds.values() for bound in row.values()), default=0.0)

    def as_record(self) -> dict[str, Any]:
        """Return the figures as plain data, for results.json."""
        further = {"categories": self.further, "mean": self.further_mean}
        names = ("categories", "mean", "n", "notes", "vanished", "further", "bounds")
        return {**{name: getattr(self, name) for name in names}, "further": further}


class AnomalyMetrics(Metric):
    """The figures of every category of a data set, from one test fed batch by batch in any order.

    Maps are counted and not kept. Under torch.distributed each process feeds its share, `compute`
    gathers the counts, and an image that several processes were given counts once.

    Args:
        categories: Names of the categories, in the order of the results.
        tolerance: Largest error of a pixel figure, as a fraction of 1, that needs no second pass.
        max_bins: Most bins of a category in the first pass over the maps.
        source: Protocol whose own estimators of pixel figures to use; by default all are exact.

    Raises:
        InputError: If the tolerance is negative or NaN, or a category has an impossible name.
    """

    full_state_update = False

    def __init__(
        self,
        categories: Sequence[str],
        *,
        tolerance: float = TOLERANCE,
        max_bins: int = MAX_BINS,
        source: str | None = None,
    ) -> None:
        super().__init__(sync_on_compute=False)
        if not tolerance >= 0:
            raise InputError(f"tolerance must not be negative, but got {tolerance}.")
        for name in categories:
            if name.encode(errors="ignore").decode() != name:
                raise InputError(f"The category {name!a} is not named in UTF-8. Rename its folder.")
        self._names = categories
        self._tolerance = tolerance
        self._build = partial(CategoryMetrics, max_bins=max_bins, source=source)
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        super().reset()
        self._categories = {name: self._build() for name in self._names}
        self._settled: set[str] = set()  # categories that the second pass does not count

    def update(self, prediction: Prediction, labels: Labels, categories: Sequence[str]) -> None:
        """Add the predictions of a batch.

        Args:
            prediction: Scores (B,) and maps (B, H, W).
            labels: What is known about the images.
            categories: Name of the category of each image (B).

        Raises:
            InputError: If a score is NaN or infinite.
        """
        prediction = Prediction(*(tensor.detach().cpu() for tensor in prediction))
        labels = Labels(*(tensor.cpu() for tensor in labels))
        for name in dict.fromkeys(categories):
            if name in self._settled:
                continue
            rows = torch.tensor([i for i, other in enumerate(categories) if other == name])
            part = Prediction(*(tensor[rows] for tensor in prediction))
            if not all(bool(torch.isfinite(tensor).all()) for tensor in part):
                raise InputError(
                    f"A score of category '{name}' is NaN or infinite. The features may overflow "
                    f"the precision of training. Train again with --trainer.precision 32-true."
                )
            self._categories[name].update(part, Labels(*(tensor[rows] for tensor in labels)))

    def compute(self, *, replay: Callable[[], None] | None = None) -> Results:
        """Return all figures.

        Args:
            replay: Feeds the same batches to `update` once more. It is called if the error of a
                figure may exceed the tolerance.
        """
        for category in self._categories.values():
            category.compute()
        if replay is not None:
            coarse = [
                name
                for name, category in self._categories.items()
                if category.has_pixel_figures and category.pixel.refine(self._tolerance)
            ]
            self._settled = self._categories.keys() - coarse
            if coarse:
                replay()
            for name in coarse:
                self._categories[name].compute_pixels()
        return self._results()

    def _results(self) -> Results:
        seven: dict[str, Figures] = {}
        further: dict[str, Figures] = {}
        bounds: dict[str, dict[str, float]] = {}
        for name, category in self._categories.items():
            figures, bounds[name] = category.figures()
            seven[name] = {key: figures.pop(key) for key in METRICS}
            values = [value for value in seven[name].values() if value is not None]
            seven[name]["mad"] = sum(values) / len(values) if len(values) == len(METRICS) else None
            further[name] = figures
        mean, n = _mean(seven)
        categories = self._categories.items()
        return Results(
            categories=seven,
            mean=mean,
            n=n,
            notes={name: note for name, category in categories if (note := category.note())},
            vanished={name: each.vanished for name, each in categories if each.vanished["regions"]},
            further=further,
            further_mean=_mean(further)[0],
            bounds=bounds,
            images={name: category.images for name, category in categories},
            counts={name: category.pixel.images for name, category in categories},
        )


def _mean(categories: Mapping[str, Figures]) -> tuple[Figures, dict[str, int]]:
    """Return the mean of each figure over the categories that have it, and their number."""
    mean: Figures = {}
    n: dict[str, int] = {}
    for key in dict.fromkeys(key for row in categories.values() for key in row):
        values = [value for row in categories.values() if (value := row[key]) is not None]
        n[key] = len(values)
        mean[key] = sum(values) / len(values) if values else None
    return mean, n
