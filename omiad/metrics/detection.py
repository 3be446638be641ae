"""The seven metrics of the field, per category and averaged over categories."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from omiad.errors import InputError
from omiad.metrics.ranking import Ranking, area_up_to, auroc, average_precision, f1_max
from omiad.metrics.region_overlap import region_weights
from omiad.types import ImageBatch, Prediction

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
METRICS = IMAGE_METRICS + PIXEL_METRICS
FPR_LIMIT = 0.3
"""False-positive rate that AU-PRO integrates to."""


class ImageDetection(Metric):
    """AUROC, average precision and F1-max of image scores."""

    scores: list[Tensor]
    labels: list[Tensor]

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(compute_on_cpu=True, **kwargs)
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, score: Tensor, is_anomalous: Tensor) -> None:
        """Add scores (B,), of any range, and labels (B,), bool."""
        self.scores.append(score.detach().float().cpu())
        self.labels.append(is_anomalous.bool().cpu())

    def compute(self) -> dict[str, float]:
        """Return the image metrics as fractions of 1."""
        counts = Ranking(dim_zero_cat(self.scores), dim_zero_cat(self.labels)).counts()
        figures = (auroc(counts), average_precision(counts), f1_max(counts))
        return dict(zip(IMAGE_METRICS, figures, strict=True))


class PixelDetection(Metric):
    """AUROC, average precision, F1-max and AU-PRO of anomaly maps."""

    maps: list[Tensor]
    masks: list[Tensor]

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(compute_on_cpu=True, **kwargs)
        self.add_state("maps", default=[], dist_reduce_fx="cat")
        self.add_state("masks", default=[], dist_reduce_fx="cat")

    def update(self, anomaly_map: Tensor, masks: Tensor) -> None:
        """Add maps (B, H, W), of any range, and defective pixels (B, H, W), bool."""
        self.maps.append(anomaly_map.detach().float().cpu())
        self.masks.append(masks.bool().cpu())

    def compute(self) -> dict[str, float]:
        """Return the pixel metrics as fractions of 1; the pixels are sorted once."""
        masks = dim_zero_cat(self.masks)
        ranking = Ranking(dim_zero_cat(self.maps), masks)
        counts = ranking.counts()
        overlap = area_up_to(ranking.counts(region_weights(masks)), FPR_LIMIT)
        figures = (auroc(counts), average_precision(counts), f1_max(counts), overlap)
        return dict(zip(PIXEL_METRICS, figures, strict=True))


Figures = dict[str, float | None]


@dataclass(frozen=True)
class Results:
    """Figures as fractions of 1, None where one is undefined.

    Attributes:
        categories: The seven metrics and their mean `mad` for each category.
        mean: Mean of each over the categories that have it; `mad` over those with all seven.
        n: Number of categories behind each mean.
        notes: For a category without some figures, why.
    """

    categories: dict[str, Figures]
    mean: Figures
    n: dict[str, int]
    notes: dict[str, str] = field(default_factory=dict)


class _Category:
    """The metrics of one category and what decides which of them are defined."""

    def __init__(self) -> None:
        self.image, self.pixel = ImageDetection(), PixelDetection()
        self.num_normal = self.num_anomalous = self.num_without_mask = 0
        self.has_defective_pixels = False

    def missing(self) -> str | None:
        """Say why figures are missing, None if none is."""
        if not self.num_anomalous:
            return "no defective test image: nothing to measure"
        reasons = []
        if not self.num_normal:
            reasons.append("no normal test image: no image figures")
        if self.num_without_mask:
            count = f"{self.num_without_mask} of {self.num_anomalous}"
            reasons.append(f"{count} defective test images have no mask: no pixel figures")
        elif not self.has_defective_pixels:
            reasons.append("every mask is empty: no pixel figures")
        return "; ".join(reasons) or None

    def figures(self) -> Figures:
        figures: Figures = dict.fromkeys(METRICS)
        if self.num_anomalous and self.num_normal:
            figures |= self.image.compute()
        if self.num_anomalous and not self.num_without_mask and self.has_defective_pixels:
            figures |= self.pixel.compute()
        values = [value for value in figures.values() if value is not None]
        figures["mad"] = sum(values) / len(values) if len(values) == len(METRICS) else None
        return figures


class AnomalyMetrics:
    """The seven metrics of every category of a data set, fed batch by batch.

    Args:
        categories: Names of the categories, in the order of the results.
    """

    def __init__(self, categories: Sequence[str]) -> None:
        self._categories = {name: _Category() for name in categories}

    def update(self, prediction: Prediction, batch: ImageBatch, categories: Sequence[str]) -> None:
        """Add the predictions of a batch.

        Args:
            prediction: Scores (B,) and maps (B, H, W).
            batch: What is known about the images.
            categories: Name of each image's category (B).

        Raises:
            InputError: If a score is NaN or infinite.
        """
        for name in dict.fromkeys(categories):
            rows = torch.tensor([i for i, other in enumerate(categories) if other == name])
            category = self._categories[name]
            score, maps = prediction.score[rows].cpu(), prediction.anomaly_map[rows].cpu()
            if not (torch.isfinite(score).all() and torch.isfinite(maps).all()):
                raise InputError(
                    f"A score of category '{name}' is NaN or infinite. Was the model trained in a "
                    f"precision its features overflow? Try --trainer.precision 32-true."
                )
            labels, masks = batch.is_anomalous[rows].cpu(), batch.masks[rows].cpu()
            category.image.update(score, labels)
            category.pixel.update(maps, masks)
            category.num_anomalous += int(labels.sum())
            category.num_normal += int((~labels).sum())
            category.num_without_mask += int((~batch.has_mask[rows].cpu()).sum())
            category.has_defective_pixels |= bool(masks.any())

    def compute(self) -> Results:
        """Return all figures and forget the predictions."""
        figures: dict[str, Figures] = {}
        notes: dict[str, str] = {}
        for name, category in list(self._categories.items()):
            figures[name] = category.figures()
            if (note := category.missing()) is not None:
                notes[name] = note
            self._categories[name] = _Category()  # frees the maps before the next one is sorted
        mean: Figures = {}
        n: dict[str, int] = {}
        for key in (*METRICS, "mad"):
            values = [f for row in figures.values() if (f := row[key]) is not None]
            n[key] = len(values)
            mean[key] = sum(values) / len(values) if values else None
        return Results(figures, mean, n, notes)
