"""Choose which images of a test can be shown later: the worst errors and samples of each defect."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.metrics.gathering import gather
from omiad.types import Labels, Prediction, Sample

T = TypeVar("T")

NUM_KEPT = 1000
"""Images kept of a test, over all categories."""

MAP_SIDE, MASK_SIDE = 96, 192
"""Largest sides of a kept map and a kept mask in pixels."""


class Kept(NamedTuple):
    """One image that is kept.

    Attributes:
        index: Position in the test split.
        score: Image score.
        anomaly_map: Pixel scores (h, w), float32.
        mask: Defective pixels (S, S), bool; None if nobody drew them.
        reconstruction: The model's reconstruction (h, w, 3), uint8; None without a decoder.
    """

    index: int  # type: ignore[assignment] # shadows tuple.index, which is unused
    score: float
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.bool_] | None
    reconstruction: NDArray[np.uint8] | None


class KeptImages:
    """Keeps the maps of some images while the test passes over all of them.

    A third of a category's share are its highest-scoring normal images, a third its lowest-scoring
    defective ones, and the rest is spread over its defects.

    Args:
        samples: The test images, by index.
        num_images: Most images to keep. Small categories are kept whole; the others get equal
            shares. 0 keeps none.
    """

    def __init__(self, samples: Sequence[Sample], *, num_images: int = NUM_KEPT) -> None:
        if num_images < 0:
            raise InputError(f"--num_kept must not be negative, but got {num_images}.")
        self._samples = samples
        defects: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for index, sample in enumerate(samples):
            defects[sample.category][sample.defect].append(index)
        in_turn = [turns(list(indices.values())) for indices in defects.values()]
        share = fair_share([len(indices) for indices in in_turn], num_images)
        self._num_worst = share // 3
        self._spread = set[int]()
        for indices in in_turn:
            is_small = len(indices) <= share
            self._spread.update(indices if is_small else indices[: share - 2 * self._num_worst])
        self._kept: dict[int, Kept] = {}
        self._worst: dict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)

    def add(
        self,
        prediction: Prediction,
        labels: Labels,
        *,
        picture: Callable[[list[int]], Tensor | None] | None = None,
    ) -> None:
        """Keep the images of a batch that rank high enough, and drop those they displace.

        Scores and maps are those that the metrics see. `picture` reconstructs some rows of the
        batch as (N, 3, H, W), uint8.
        """
        maps = _shrunk(prediction.anomaly_map)
        scores, indices = prediction.score.tolist(), labels.index.tolist()
        wanted = self._rank(zip(indices, scores, strict=True))
        rows = [row for row, index in enumerate(indices) if index in wanted]
        if not rows:
            return
        side = min(MASK_SIDE, labels.masks.shape[-1])
        # A pixel is defective if any pixel that it replaces is.
        masks = (F.adaptive_max_pool2d(labels.masks[rows].float().cpu(), side) > 0).numpy()
        pictures = picture(rows) if picture is not None else None
        drawn = None if pictures is None else _shrunk(pictures).round().byte()
        for number, row in enumerate(rows):  # views would keep the whole batch in memory
            self._kept[indices[row]] = Kept(
                indices[row],
                scores[row],
                maps[row].numpy().copy(),
                masks[number].copy() if labels.has_mask[row] else None,
                None if drawn is None else drawn[number].permute(1, 2, 0).numpy().copy(),
            )
        self._kept = {index: self._kept[index] for index in sorted(wanted & self._kept.keys())}

    def _rank(self, scores: Iterable[tuple[int, float]]) -> set[int]:
        """Rank images among the errors of their categories; return the indices to keep."""
        for index, score in scores:
            sample = self._samples[index]
            worst = self._worst[sample.category, sample.is_anomalous]
            worst.append((score if sample.is_anomalous else -score, index))
            worst.sort()
            del worst[self._num_worst :]
        return self._spread | {index for worst in self._worst.values() for _, index in worst}

    def share(self) -> None:
        """Merge what all processes kept; every process must call this."""
        self._worst.clear()
        merged = {index: image for kept in gather(self._kept) for index, image in kept.items()}
        wanted = self._rank((index, image.score) for index, image in merged.items())
        self._kept = {index: merged[index] for index in sorted(wanted & merged.keys())}

    @property
    def kept(self) -> list[Kept]:
        """The kept images, in the order of the test split."""
        return list(self._kept.values())


def fair_share(counts: Collection[int], total: int) -> int:
    """Return how many images each category may keep, given that small ones are kept whole."""
    left = total
    for taken, count in enumerate(sorted(counts)):
        share = left // (len(counts) - taken)
        if share < count:
            return share
        left -= count
    return total


def turns(groups: Collection[Sequence[T]]) -> list[T]:
    """Return the members of all groups, the first of each before the second of any."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _shrunk(maps: Tensor) -> Tensor:
    """Average maps (..., H, W) to at most MAP_SIDE pixels a side."""
    return F.adaptive_avg_pool2d(maps.float().cpu(), min(MAP_SIDE, maps.shape[-1]))
