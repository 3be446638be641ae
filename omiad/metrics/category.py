"""The figures of one category, and why some of them are missing."""

from omiad.metrics.estimators import SOURCE_ESTIMATORS
from omiad.metrics.gathering import gather
from omiad.metrics.images import Images, image_figures
from omiad.metrics.pixels import PixelDetection
from omiad.metrics.ranking import PIXEL_FIGURES, Figures, Interval
from omiad.regions import DEFECTIVE
from omiad.types import Labels, Prediction


class CategoryMetrics:
    """The scores of one category and its figures; arguments as of `AnomalyMetrics`."""

    images: Images
    """The images of all processes with their scores, after `compute`."""
    vanished: dict[str, int]
    """Regions that vanished from the masks, and masks of which nothing remains, after `compute`."""
    _intervals: dict[str, Interval | None]

    def __init__(self, *, max_bins: int, source: str | None) -> None:
        self.pixel = PixelDetection(max_bins=max_bins)
        self._estimate = None if source is None else SOURCE_ESTIMATORS[source]
        self._scored: dict[int, tuple[float, bool, bool]] = {}
        self._vanished: dict[int, tuple[int, bool]] = {}  # regions, and whether all of the mask

    def update(self, prediction: Prediction, labels: Labels) -> None:
        """Add the predictions of some images; an image that was added before is skipped."""
        masks, numbers = labels.masks, labels.num_vanished.tolist()
        if self._estimate is not None:  # the sources count what vanishes as normal
            masks = masks == DEFECTIVE
        self.pixel.update(prediction.anomaly_map, masks, labels.index)
        whole = (~(labels.masks == DEFECTIVE).flatten(1).any(1)).tolist()
        for index, number, is_whole in zip(labels.index.tolist(), numbers, whole, strict=True):
            if number:
                self._vanished[index] = (number, is_whole)
        columns = (prediction.score, labels.is_anomalous, labels.has_mask)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for index, row in zip(labels.index.tolist(), rows, strict=True):
            self._scored.setdefault(index, row)

    def compute(self) -> None:
        """Compute the figures over all processes; every process must call this method."""
        scored: dict[int, tuple[float, bool, bool]] = {}
        for share in gather(self._scored):
            scored = share | scored  # the first of a repeated image counts
        self.images = Images.of(scored)
        gathered = {index: row for share in gather(self._vanished) for index, row in share.items()}
        regions, masks = map(sum, zip(*gathered.values(), strict=True)) if gathered else (0, 0)
        self.vanished = {"regions": regions, "masks": masks}
        self.pixel.images.share()
        self.compute_pixels()

    def compute_pixels(self) -> None:
        """Compute the pixel figures over all processes; every process must call this method."""
        self._intervals = self.pixel.compute()
        if not self.images.has_mask.all():
            self._intervals = dict.fromkeys(PIXEL_FIGURES)

    @property
    def has_pixel_figures(self) -> bool:
        """Whether the pixel figures are defined."""
        return None not in self._intervals.values()

    def figures(self) -> tuple[Figures, dict[str, float]]:
        """Return all figures, and the largest error of each pixel figure that is exact."""
        figures = image_figures(self.images.score, self.images.is_anomalous)
        known = {name: each for name, each in self._intervals.items() if each is not None}
        figures |= dict.fromkeys(PIXEL_FIGURES) | {name: each.value for name, each in known.items()}
        estimates = self._estimate(self.pixel.bins) if self._estimate and known else {}
        bounds = {name: each.bound for name, each in known.items() if name not in estimates}
        return figures | estimates, bounds

    def note(self) -> str | None:
        """Say why figures are missing or less exact than asked for; None if all are exact."""
        images = self.images
        if not images.is_anomalous.any():
            return "no defective test image: nothing to measure"
        reasons = []
        if images.is_anomalous.all():
            reasons.append("no normal test image: no image figures")
        if not images.has_mask.all():
            count = f"{(~images.has_mask).sum()} of {images.is_anomalous.sum()}"
            reasons.append(f"{count} defective test images have no mask: no pixel figures")
        elif not self.has_pixel_figures:
            reasons.append("every mask is empty: no pixel figures")
        if self.vanished["regions"]:
            is_exact = self._estimate is None
            fate = "are left out" if is_exact else "count as normal, as in the protocol's source"
            reasons.append(
                f"defect regions that vanish at the size of the maps: {self.vanished['regions']} "
                f"(whole masks: {self.vanished['masks']}); their pixels {fate}"
            )
        if not self.pixel.is_repeatable:
            reasons.append("maps changed from pass to pass: pixel figures are those of the first")
        return "; ".join(reasons) or None
