"""Pixel figures from streamed anomaly maps, each with the bound of its error."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.errors import InputError
from omiad.metrics.bounds import PIXEL_FIGURES, Interval, Ranked
from omiad.metrics.gathering import ListMetric
from omiad.metrics.histogram import MAX_BINS, Bins, Tally, merge, score_codes, tally
from omiad.metrics.image_counts import ImageCounts
from omiad.metrics.region_overlap import weigh_regions

TOLERANCE = 1e-4
"""Largest error of a figure, as a fraction of 1, that needs no finer bins."""

_MANY = -1
"""Tag of a tally of several images."""


class PixelDetection(ListMetric):
    """AUROC, average precision, F1-max, AU-PRO and operating points of anomaly maps.

    The maps are counted and forgotten: the state is bounded, and only counts travel between
    processes. Each figure comes as an interval that holds the exact one. Where that is too wide,
    `refine` picks the bins to blame; feed all maps once more and compute again.

    The last image of each process is counted by itself: a sampler that pads repeats an image
    there, and only one of the repeated counts.

    Args:
        max_bins: Most bins of a pass over the maps; fewer scores than that are counted exactly.

    Attributes:
        bins: The counts of all processes, after `compute`.
        images: The counts of each image by itself, of those given with an index.
        is_repeatable: Whether the last pass saw the maps of the one before.
    """

    keys: list[Tensor]
    counts: list[Tensor]
    tags: list[Tensor]
    index: list[Tensor]

    higher_is_better = True

    def __init__(self, *, max_bins: int = MAX_BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_bins = max_bins
        self.add_lists("keys", "counts", "tags", "index")
        self._forget()

    def reset(self) -> None:
        """Forget all maps."""
        super().reset()
        self._forget()

    def _forget(self) -> None:
        self.bins = Bins.of(Tally.empty())
        self._coarse: tuple[Bins, NDArray[np.bool_]] | None = None
        self._room = self.max_bins
        self.images = ImageCounts()
        self.is_repeatable = True

    def update(self, anomaly_map: Tensor, masks: Tensor, *, index: Tensor | None = None) -> None:
        """Add maps; one whose index is already there does not count again.

        Args:
            anomaly_map: Scores (B, H, W), of any range.
            masks: Defective pixels (B, H, W), bool.
            index: Position of each image in its split (B,); by default no image is repeated.

        Raises:
            InputError: If the shapes differ, or a score is NaN, infinite, or no float32.
        """
        if anomaly_map.shape != masks.shape:
            raise InputError(
                f"Pixel metrics need a mask of each map's shape, but got {tuple(masks.shape)} for "
                f"{tuple(anomaly_map.shape)}."
            )
        if not is_finite(anomaly_map):
            raise InputError("Pixel metrics need finite scores, but some are NaN or infinite.")
        if not torch.equal(anomaly_map.float().to(anomaly_map.dtype), anomaly_map):
            raise InputError(
                f"Pixel metrics rank float32, which rounds some of these {anomaly_map.dtype} "
                f"scores. Give float32 maps."
            )
        images = [_MANY] * len(masks) if index is None else index.tolist()
        rows = self._new(images)
        if not rows:
            return
        codes, labels = score_codes(anomaly_map), masks.bool().cpu().numpy()
        if len(rows) < len(images):
            codes, labels = codes[rows], labels[rows]
        codes = codes.reshape(len(rows), -1)
        pixels, weights = weigh_regions(labels)
        if self._coarse is None and index is not None:
            self.images.add(codes, pixels, weights, [images[row] for row in rows])
        self._settle()
        self.extend("index", torch.tensor([images[row] for row in rows[:-1]], dtype=torch.long))
        start = codes[:-1].size
        last = int(np.searchsorted(pixels, start))
        self._count(codes[:-1].ravel(), pixels[:last], weights[:last], _MANY)
        self._compact()
        self._count(codes[-1], pixels[last:] - start, weights[last:], images[rows[-1]])

    def compute(self) -> dict[str, Interval | None]:
        """Return each pixel figure as a fraction of 1, None where normals or defects lack.

        Raises:
            InputError: If processes share more images than a sampler pads.
        """
        bins = Bins.of(merge(self._distinct_tallies(), max_bins=self._room))
        if self._coarse is None:
            self.bins = bins
        else:
            before, rows = self._coarse
            self.is_repeatable = before.take(rows).are_split_by(bins)
            self.bins = before.with_finer(rows, bins) if self.is_repeatable else before
        if not (self.bins.counts[:2].sum(axis=1) > 0).all():
            return dict.fromkeys(PIXEL_FIGURES)
        ranked = self._ranked()
        return {name: figure(ranked).interval for name, figure in PIXEL_FIGURES.items()}

    def refine(self, tolerance: float = TOLERANCE) -> bool:
        """Make ready for a pass over the same maps that counts in finer bins where needed.

        Call it after `compute`, in all processes.

        Args:
            tolerance: Largest error of a figure, as a fraction of 1.

        Returns:
            Whether that pass is needed. If so, nothing but the picked bins counts from now on.
        """
        if not (self.is_repeatable and (self.bins.counts[:2].sum(axis=1) > 0).all()):
            return False
        ranked = self._ranked()
        rows = np.zeros(len(self.bins.start), np.bool_)
        for figure in PIXEL_FIGURES.values():
            interval, spread = figure(ranked)
            if interval.bound > tolerance:
                rows |= _largest(spread[::-1], but=tolerance)
        if not rows.any():
            return False
        # The widest alone, lest what they are counted in is wider than what is split already.
        rows &= self.bins.shift == self.bins.shift[rows].max()
        super().reset()
        self._coarse = self.bins, rows
        self._room *= 2  # so that every pass sees more than the one before
        return True

    def _ranked(self) -> Ranked:
        return Ranked(self.bins.counts[:, ::-1], self.bins.shift[::-1] == 0)

    def _new(self, images: list[int]) -> list[int]:
        """Return the rows of a batch whose images are not there yet."""
        last = [tag[:1] for tag in self.tags[-1:]]
        seen = set(torch.cat([_NONE, *self.index, *last]).tolist()) - {_MANY}
        rows = []
        for row, image in enumerate(images):
            if image not in seen:
                rows.append(row)
            if image != _MANY:
                seen.add(image)
        return rows

    def _settle(self) -> None:
        """Put the last image with the others."""
        if self.tags:
            self.extend("index", self.tags[-1][:1])
            self.tags[-1] = torch.tensor([_MANY, self.tags[-1][1]])

    def _compact(self) -> None:
        """Add up all tallies, so that no more than two ever wait."""
        whole = merge(list(self._tallies()), max_bins=self._room)
        self.keys, self.counts, self.tags = [], [], []
        self._append(whole, _MANY)

    def _count(
        self,
        codes: NDArray[np.int32],
        defective: NDArray[np.intp],
        weights: NDArray[np.float32],
        image: int,
    ) -> None:
        if self._coarse is not None:
            before, rows = self._coarse
            inside = before.take(rows).contain(codes)
            kept = inside[defective]
            defective, weights = (np.cumsum(inside) - 1)[defective[kept]], weights[kept]
            codes = codes[inside]
        shift = int(self.tags[0][1]) if self.tags else 0
        counted = tally(codes, defective, weights, shift=shift, max_bins=self._room)
        self._append(counted, image)

    def _append(self, counted: Tally, image: int) -> None:
        self.keys.append(torch.from_numpy(counted.keys))
        self.counts.append(torch.from_numpy(counted.counts))
        self.tags.append(torch.tensor([image, counted.shift]))

    def _tallies(self) -> Iterator[Tally]:
        for keys, counts, tag in zip(self.keys, self.counts, self.tags, strict=True):
            yield Tally(int(tag[1]), keys.numpy(), counts.numpy())

    def _distinct_tallies(self) -> list[Tally]:
        """Return the tallies of all processes, those of a repeated last image once."""
        settled = [image for image in torch.cat([*self.index, _NONE]).tolist() if image != _MANY]
        seen = set(settled)
        if len(seen) < len(settled):
            raise InputError(
                "Two processes scored the same test images, more than one each. Use a sampler that "
                "shares the images out."
            )
        distinct = []
        for counted, (image, _) in zip(self._tallies(), self.tags, strict=True):
            if int(image) not in seen:
                distinct.append(counted)
            if int(image) != _MANY:
                seen.add(int(image))
        return distinct


_NONE = torch.empty(0, dtype=torch.long)


def is_finite(scores: Tensor) -> bool:
    """Return whether no score is NaN or infinite."""
    return not scores.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(scores))).all())


def _largest(spread: NDArray[np.float64], *, but: float) -> NDArray[np.bool_]:
    """Pick the largest spreads, leaving out as many as add up to less than `but`."""
    order = np.argsort(spread)
    picked = np.zeros(len(spread), np.bool_)
    picked[order] = np.cumsum(spread[order]) > but
    return picked & (spread > 0)
