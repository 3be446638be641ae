"""Pixel figures from streamed anomaly maps, each with the bound of its error."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.errors import InputError
from omiad.metrics.gathering import gather
from omiad.metrics.histogram import MAX_BINS, Bins, Tally, merge, score_codes, tally
from omiad.metrics.image_counts import ImageCounts
from omiad.metrics.ranking import PIXEL_FIGURES, Interval, Ranked
from omiad.metrics.regions import weigh_regions

TOLERANCE = 1e-4
"""Largest error of a figure, as a fraction of 1, that needs no second pass."""


class PixelDetection:
    """AUROC, average precision, F1-max, AU-PRO and operating points of anomaly maps.

    Maps are counted and not kept: the memory is bounded, and only counts travel between processes.
    Each figure is an interval that holds the exact figure. If an interval is too wide, `refine`
    picks the bins that make it wide; feed all maps once more and compute again.

    Args:
        max_bins: Most bins of the first pass; the second pass may use twice as many.

    Attributes:
        bins: The counts of all processes, after `compute`.
        images: The counts of each image.
        is_repeatable: Whether the second pass saw the maps of the first.
    """

    def __init__(self, *, max_bins: int = MAX_BINS) -> None:
        self.bins = Bins.of(Tally.empty())
        self.images = ImageCounts()
        self.is_repeatable = True
        self._pass = _Pass(max_bins=max_bins)
        self._counted = Tally.empty()
        self._rest = Tally.empty()  # the bins that the second pass does not count again

    def update(self, anomaly_map: Tensor, masks: Tensor, index: Tensor) -> None:
        """Add maps; an image whose index was added before is skipped.

        Args:
            anomaly_map: Scores (B, H, W), finite and of any range.
            masks: Defective pixels (B, H, W), bool.
            index: Position of each image in its split (B,).

        Raises:
            InputError: If the shapes differ, or a score is not a float32.
        """
        if anomaly_map.shape != masks.shape:
            raise InputError(
                f"Pixel metrics need a mask of each map's shape, but got {tuple(masks.shape)} for "
                f"{tuple(anomaly_map.shape)}."
            )
        if not torch.equal(anomaly_map.float().to(anomaly_map.dtype), anomaly_map):
            raise InputError(
                f"Pixel metrics rank float32, which rounds some of these {anomaly_map.dtype} "
                f"scores. Give float32 maps."
            )
        images = index.tolist()
        rows = self._pass.new_rows(images)
        if not rows:
            return
        codes, labels = score_codes(anomaly_map), masks.bool().cpu().numpy()
        if len(rows) < len(images):
            codes, labels, images = codes[rows], labels[rows], [images[row] for row in rows]
        codes = codes.reshape(len(rows), -1)
        pixels, weights = weigh_regions(labels)
        if self._pass.picked is None:
            self.images.add(codes, pixels, weights, images)
        self._pass.add(codes, pixels, weights, images)

    def compute(self) -> dict[str, Interval | None]:
        """Return each pixel figure as a fraction of 1, None if either class is missing.

        Raises:
            InputError: If processes share more images than a sampler pads.
        """
        counted, picked = self._pass.gathered(), self._pass.picked
        self.is_repeatable = picked is None or picked.is_split_by(counted)
        if self.is_repeatable:
            self._counted, self.bins = counted, Bins.of(self._rest, counted)
        if not self._has_both_classes:
            return dict.fromkeys(PIXEL_FIGURES)
        ranked = self._ranked()
        return {name: figure(ranked).interval for name, figure in PIXEL_FIGURES.items()}

    def refine(self, tolerance: float = TOLERANCE) -> bool:
        """Prepare a second pass over the same maps, which counts some bins in narrower bins.

        Maps that crowd in few bins, such as softmax maps near one, need this pass; none that was
        tried needs a third (tests/benchmarks/metrics.py --passes). Call this method once, after
        `compute`, in all processes.

        Args:
            tolerance: Largest error of a figure, as a fraction of 1.

        Returns:
            Whether the second pass is needed. If it is, only the picked bins count from now on.
        """
        if not self._has_both_classes:
            return False
        ranked, rows = self._ranked(), np.zeros(len(self.bins.start), np.bool_)
        for figure in PIXEL_FIGURES.values():
            interval, spread = figure(ranked)
            if interval.bound > tolerance:
                rows |= _largest(spread[::-1], but=tolerance)
        if not rows.any():
            return False
        self._rest = self._counted.take(~rows)
        self._pass = _Pass(max_bins=2 * self._pass.max_bins, picked=self._counted.take(rows))
        return True

    @property
    def _has_both_classes(self) -> bool:
        return bool((self.bins.counts[:2].sum(axis=1) > 0).all())

    def _ranked(self) -> Ranked:
        return Ranked(self.bins.counts[:, ::-1], self.bins.is_tied[::-1])


class _Pass:
    """What one process counted in one pass over the maps.

    The last image is counted apart from the others. A sampler that pads the shares of processes
    repeats images there, and a repeated image must count once.

    Args:
        max_bins: Most bins.
        picked: The bins in which pixels are counted, all by default.
    """

    def __init__(self, *, max_bins: int, picked: Tally | None = None) -> None:
        self.max_bins = max_bins
        self.picked = picked
        self._images: set[int] = set()
        self._others = Tally.empty()
        self._last = Tally.empty()
        self._last_image: int | None = None

    def new_rows(self, images: list[int]) -> list[int]:
        """Return the rows of a batch whose images are not yet counted."""
        new = [image not in self._images for image in images]
        return [row for row, image in enumerate(images) if new[row] and image not in images[:row]]

    def add(
        self,
        codes: NDArray[np.int32],
        defective: NDArray[np.intp],
        weights: NDArray[np.float32],
        images: list[int],
    ) -> None:
        """Count new images; arguments as of `ImageCounts.add`."""
        start = codes[:-1].size
        split = int(np.searchsorted(defective, start))
        others = self._count(codes[:-1].ravel(), defective[:split], weights[:split])
        self._others = merge([self._others, self._last, others], max_bins=self.max_bins)
        self._last = self._count(codes[-1], defective[split:] - start, weights[split:])
        self._images.update(images)
        self._last_image = images[-1]

    def gathered(self) -> Tally:
        """Return the counts of all processes, an image that several of them counted once.

        Raises:
            InputError: If processes share more images than a sampler pads.
        """
        mine = (self._images - {self._last_image}, self._others, self._last_image, self._last)
        shares = gather(mine)
        seen: set[int | None] = set()
        for images, *_ in shares:
            if not seen.isdisjoint(images):
                raise InputError(
                    "Two processes scored the same test images, more than one each. Use a sampler "
                    "that gives each image to one process."
                )
            seen |= images
        tallies = [others for _, others, _, _ in shares]
        for _, _, image, last in shares:
            if image not in seen:
                tallies.append(last)
                seen.add(image)
        return merge(tallies, max_bins=self.max_bins)

    def _count(
        self, codes: NDArray[np.int32], defective: NDArray[np.intp], weights: NDArray[np.float32]
    ) -> Tally:
        if self.picked is not None:
            inside = self.picked.contains(codes)
            kept = inside[defective]
            defective, weights = (np.cumsum(inside) - 1)[defective[kept]], weights[kept]
            codes = codes[inside]
        shift = self._others.shift  # narrower bins would be merged anyway
        return tally(codes, defective, weights, shift=shift, max_bins=self.max_bins)


def _largest(spread: NDArray[np.float64], *, but: float) -> NDArray[np.bool_]:
    """Pick the largest spreads; those that are not picked add up to at most `but`."""
    order = np.argsort(spread)
    picked = np.zeros(len(spread), np.bool_)
    picked[order] = np.cumsum(spread[order]) > but
    return picked & (spread > 0)
