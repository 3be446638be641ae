"""Pixel figures from streamed anomaly maps, each with the bound of its error."""

import numpy as np
import torch
from torch import Tensor

from omiad.errors import InputError
from omiad.metrics.gathering import gather
from omiad.metrics.histogram import MAX_BINS, Bins, Pixels, Tally, merge, score_codes, tally
from omiad.metrics.image_counts import ImageCounts
from omiad.metrics.ranking import PIXEL_FIGURES, Interval, Ranked
from omiad.regions import UNKNOWN

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
        self.bins = Bins.of(Tally())
        self.images = ImageCounts()
        self.is_repeatable = True
        self._pass = _Pass(max_bins=max_bins)
        self._counted = Tally()
        self._rest = Tally()  # the bins that the second pass does not count again

    def update(self, anomaly_map: Tensor, masks: Tensor, index: Tensor) -> None:
        """Add maps; an image whose index was added before is skipped.

        Args:
            anomaly_map: Scores (B, H, W), finite and of any range.
            masks: Labels of the pixels (B, H, W), see `Labels`; unknown pixels do not count.
            index: Position of each image in its split (B,).
        """
        if anomaly_map.shape != masks.shape:
            raise InputError(
                f"Pixel metrics need a mask of each map's shape, but got {tuple(masks.shape)} for "
                f"{tuple(anomaly_map.shape)}."
            )
        if masks.dtype != torch.bool and masks.numel() and not 0 <= masks.max() <= UNKNOWN:
            raise InputError(
                f"Labels of pixels are 0 (normal), 1 (defective) or 2 (unknown), but got "
                f"{masks.max().item()}. Give masks > 0."
            )
        if not torch.equal(anomaly_map.float().to(anomaly_map.dtype), anomaly_map):
            raise InputError(
                f"Pixel metrics need float32 maps, but some of these {anomaly_map.dtype} scores "
                f"change when they are rounded to float32. Give float32 maps."
            )
        images, seen = index.tolist(), self._pass.images
        rows = [images.index(image) for image in dict.fromkeys(images) if image not in seen]
        if not rows:
            return
        pixels = Pixels.of(score_codes(anomaly_map[rows]), masks[rows].cpu().numpy())
        images = [images[row] for row in rows]
        if self._pass.picked is None:
            self.images.add(pixels, images)
        self._pass.add(pixels, images)

    def compute(self) -> dict[str, Interval | None]:
        """Return each pixel figure as a fraction of 1, None if either class is missing."""
        counted, picked = self._pass.gathered(), self._pass.picked
        self.is_repeatable = picked is None or picked.is_split_by(counted)
        if self.is_repeatable:
            self._counted, self.bins = counted, Bins.of(self._rest, counted)
        ranked = self._ranked()
        if ranked is None:
            return dict.fromkeys(PIXEL_FIGURES)
        return {name: figure(ranked).interval for name, figure in PIXEL_FIGURES.items()}

    def refine(self, tolerance: float = TOLERANCE) -> bool:
        """Prepare a second pass over the same maps, which counts some bins in narrower bins.

        It is needed, and True is returned, if the error of a figure may exceed the tolerance, as
        for maps that crowd in few bins. None that was tried needs a third pass
        (tests/benchmarks/metrics.py --passes). Call this method once, after `compute`, in all
        processes.
        """
        rows, ranked = np.zeros(len(self.bins.start), np.bool_), self._ranked()
        if ranked is None:
            return False
        for figure in PIXEL_FIGURES.values():
            interval, spread = figure(ranked)
            if interval.bound > tolerance:
                # The smallest spreads, which add up to at most the tolerance, are left.
                order = np.argsort(spread[::-1])
                ascending = spread[::-1][order]
                rows[order] |= (np.cumsum(ascending) > tolerance) & (ascending > 0)
        if not rows.any():
            return False
        self._rest = self._counted.take(~rows)
        self._pass = _Pass(max_bins=2 * self._pass.max_bins, picked=self._counted.take(rows))
        return True

    def _ranked(self) -> Ranked | None:
        """Return the bins from the highest, None if either class is missing."""
        counts = self.bins.counts[:, ::-1]
        return Ranked(counts, self.bins.is_tied[::-1]) if counts[:2].any(1).all() else None


class _Pass:
    """What one process counted in one pass over the maps.

    The last image is counted apart from the others. A sampler that pads the shares of processes
    repeats images there, and a repeated image must count once. If bins were picked, the other
    pixels are left out.
    """

    def __init__(self, *, max_bins: int, picked: Tally | None = None) -> None:
        self.max_bins = max_bins
        self.picked = picked
        self.images: set[int] = set()
        self._others = Tally()
        self._last = Tally()
        self._last_image: int | None = None

    def add(self, pixels: Pixels, images: list[int]) -> None:
        """Count the pixels of new images; each image has equally many."""
        total = len(pixels.codes)
        start = total - total // len(images)
        others = self._count(pixels.part(0, start))
        self._others = merge([self._others, self._last, others], max_bins=self.max_bins)
        self._last = self._count(pixels.part(start, total - start))
        self.images.update(images)
        self._last_image = images[-1]

    def _count(self, pixels: Pixels) -> Tally:
        if self.picked is not None:
            pixels = pixels.take(self.picked.contains(pixels.codes))
        shift = self._others.shift  # narrower bins would be merged anyway
        return tally(pixels, shift=shift, max_bins=self.max_bins)

    def gathered(self) -> Tally:
        """Return the counts of all processes; an image that several of them hold counts once."""
        mine = (self.images - {self._last_image}, self._others, self._last_image, self._last)
        shares = gather(mine)
        seen: set[int | None] = set()
        for images, *_ in shares:
            if not seen.isdisjoint(images):
                raise InputError(
                    "Several test images were scored by two processes. Use a sampler that gives "
                    "each image to one process."
                )
            seen |= images
        tallies = [others for _, others, _, _ in shares]
        for _, _, image, last in shares:
            if image not in seen:
                tallies.append(last)
                seen.add(image)
        return merge(tallies, max_bins=self.max_bins)
