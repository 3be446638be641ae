"""Choose which images of a test can be shown later: the worst errors and samples of each defect."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
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

    Raises:
        InputError: If `num_images` is negative.
    """

    def __init__(self, samples: Sequence[Sample], *, num_images: int = NUM_KEPT) -> None:
        if num_images < 0:
            raise InputError(f"--num_kept must not be negative, but got {num_images}.")
        self._samples = samples
        share = fair_share(Counter(sample.category for sample in samples), num_images)
        self._num_worst = share // 3
        self._spread = _spread(samples, share, share - 2 * self._num_worst)
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

        Args:
            prediction: Scores (B,) and maps (B, H, W), as the metrics see them.
            labels: What is known about the images.
            picture: Reconstructs some rows of the batch as (N, 3, H, W), uint8.
        """
        maps = shrunk(prediction.anomaly_map.float().cpu(), MAP_SIDE)
        scores, indices = prediction.score.tolist(), labels.index.tolist()
        rows = [i for i, index in enumerate(indices) if self._enters(index, scores[i])]
        drawn = picture(rows) if picture is not None and rows else None
        for number, row in enumerate(rows):
            self._kept[indices[row]] = Kept(
                indices[row],
                scores[row],
                maps[row].numpy().copy(),  # a view would keep the whole batch
                _small_mask(labels.masks[row].cpu()) if labels.has_mask[row] else None,
                None if drawn is None else _thumbnail(drawn[number]),
            )
        self._drop_displaced()

    def _enters(self, index: int, score: float) -> bool:
        """Rank an image among the errors of its category, and return whether it is kept."""
        sample = self._samples[index]
        worst = self._worst[sample.category, sample.is_anomalous]
        worst.append((score if sample.is_anomalous else -score, index))
        worst.sort()
        del worst[self._num_worst :]
        return index in self._spread or any(index == other for _, other in worst)

    def _drop_displaced(self) -> None:
        wanted = self._spread | {index for worst in self._worst.values() for _, index in worst}
        self._kept = {index: self._kept[index] for index in sorted(wanted & self._kept.keys())}

    def share(self) -> None:
        """Merge what all processes kept; every process must call this."""
        self._worst.clear()
        for kept in gather(self._kept):
            self._kept |= kept
        for image in self._kept.values():
            self._enters(image.index, image.score)
        self._drop_displaced()

    @property
    def kept(self) -> list[Kept]:
        """The kept images, in the order of the test split."""
        return list(self._kept.values())


def fair_share(counts: Mapping[str, int], total: int) -> int:
    """Return how many images each category may keep, given that small ones are kept whole."""
    left = total
    for taken, count in enumerate(sorted(counts.values())):
        share = left // (len(counts) - taken)
        if share < count:
            return share
        left -= count
    return total


def _spread(samples: Sequence[Sample], share: int, num_picked: int) -> set[int]:
    """Pick images of each category, one defect after the other; small categories whole."""
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        groups[sample.category][sample.defect].append(index)
    picked: set[int] = set()
    for defects in groups.values():
        in_turn = turns(list(defects.values()))
        picked.update(in_turn if len(in_turn) <= share else in_turn[:num_picked])
    return picked


def turns(groups: Sequence[Sequence[T]]) -> list[T]:
    """Return the members of all groups, the first of each before the second of any."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def shrunk(maps: Tensor, side: int) -> Tensor:
    """Average maps (B, H, W) to (B, side, side), unless they are smaller."""
    if maps.shape[-1] <= side:
        return maps.clone()
    return F.adaptive_avg_pool2d(maps[:, None], side)[:, 0]


def _small_mask(mask: Tensor) -> NDArray[np.bool_]:
    """Shrink a mask; a pixel is defective if any pixel that it replaces is."""
    if mask.shape[-1] > MASK_SIDE:
        mask = F.adaptive_max_pool2d(mask[None].float(), MASK_SIDE)[0] > 0
    return np.array(mask.numpy(), dtype=np.bool_)


def _thumbnail(picture: Tensor) -> NDArray[np.uint8]:
    pixels = shrunk(picture.float().cpu(), MAP_SIDE)
    return np.asarray(pixels.round().byte().permute(1, 2, 0).numpy())
