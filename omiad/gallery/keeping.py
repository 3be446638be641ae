"""Which images of a test are shown: those a model errs most on, and a spread over all defects."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch.distributed
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError
from omiad.types import Labels, Prediction, Sample

T = TypeVar("T")

MAP_SIDE = 96
"""Side of the maps kept, in pixels, unless they are smaller."""

MASK_SIDE = 192
"""Side of the masks kept; a pixel is defective where any it stands for is, so that none is lost."""

NUM_KEPT = 1000
"""Images kept of a test, all categories together."""

_SPREAD = 2.5
"""How far the scale of the maps reaches, in distances from median to 99 % of normal pixels."""


class Kept(NamedTuple):
    """One image that is kept.

    Attributes:
        index: Its position in the test split.
        score: Image score.
        anomaly_map: Pixel scores (h, w), float32.
        mask: Defective pixels (S, S), packed into bits; None where nobody drew them.
        side: S, the side of the mask.
        reconstruction: What it is reconstructed to (h, w, 3), uint8, or None without a decoder.
    """

    index: int  # type: ignore[assignment] # nobody searches it as a tuple
    score: float
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    side: int
    reconstruction: NDArray[np.uint8] | None


class Gallery:
    """Keeps the maps of some images while all of them stream by.

    Args:
        samples: The test images, by their index.
        num_images: Most images to keep; small categories whole, and of the others equally many.
            0 keeps none.

    Raises:
        InputError: If the number is negative.
    """

    def __init__(self, samples: Sequence[Sample], *, num_images: int = NUM_KEPT) -> None:
        if num_images < 0:
            raise InputError(f"--num_kept must not be negative, but got {num_images}.")
        self._samples = samples
        share = fair_share(Counter(sample.category for sample in samples), num_images)
        self._num_worst = share // 3
        self._spread = pick(samples, share, share - 2 * self._num_worst)
        self._kept: dict[int, Kept] = {}
        self._worst: dict[tuple[str, bool], list[tuple[float, int]]] = defaultdict(list)
        self._normal_levels: list[tuple[float, float]] = []

    def add(
        self,
        prediction: Prediction,
        labels: Labels,
        *,
        picture: Callable[[list[int]], Tensor | None] | None = None,
    ) -> None:
        """Keep what is to be shown of a batch.

        Args:
            prediction: Scores (B,) and maps (B, H, W), as they are measured.
            labels: What is known about the images.
            picture: Returns what some rows of the batch are reconstructed to, (N, 3, H, W), uint8.
        """
        maps = shrunk(prediction.anomaly_map.float().cpu(), MAP_SIDE)
        rows = []
        for row, index in enumerate(labels.index.tolist()):
            if not labels.is_anomalous[row]:
                levels = torch.quantile(maps[row], maps.new_tensor([0.5, 0.99])).tolist()
                self._normal_levels.append((levels[0], levels[1]))
            if self._enters(index, float(prediction.score[row])):
                rows.append(row)
        drawn = picture(rows) if picture is not None and rows else None
        for number, row in enumerate(rows):
            index = int(labels.index[row])
            mask = labels.masks[row].cpu() if bool(labels.has_mask[row]) else None
            bits = None if mask is None else _any_defective(mask)
            self._kept[index] = Kept(
                index,
                float(prediction.score[row]),
                maps[row].numpy(),
                None if bits is None else np.packbits(bits),
                0 if bits is None else len(bits),
                None if drawn is None else _thumbnail(drawn[number]),
            )
        self._forget_others()

    def _enters(self, index: int, score: float) -> bool:
        """Return whether an image is kept, and let it take the place of a less telling one."""
        sample = self._samples[index]
        worst = self._worst[sample.category, sample.is_anomalous]
        worst.append((score if sample.is_anomalous else -score, index))
        worst.sort()
        del worst[self._num_worst :]
        return index in self._spread or any(index == other for _, other in worst)

    def _forget_others(self) -> None:
        wanted = self._spread | {index for worst in self._worst.values() for _, index in worst}
        self._kept = {index: kept for index, kept in self._kept.items() if index in wanted}

    def share(self) -> None:
        """Take in what all processes kept; each must call it."""
        if not torch.distributed.is_initialized():
            return
        everyone: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(everyone, (self._kept, self._normal_levels))
        self._worst.clear()
        self._normal_levels = [level for _, levels in everyone for level in levels]
        for kept, _ in everyone:
            self._kept |= kept
        for kept in self._kept.values():
            self._enters(kept.index, kept.score)
        self._forget_others()

    def scale(self) -> tuple[float, float]:
        """Return scores to draw darkest and brightest: normal images stay dark.

        The median over normal images of their median pixel, and 2.5 times as far above it as the
        median over them of their 99th percentile.
        """
        levels = self._normal_levels
        if not levels:
            levels = [(float(k.anomaly_map.min()), float(k.anomaly_map.max()))
                      for k in self._kept.values()] or [(0.0, 1.0)]  # fmt: skip
        low, high = np.median(np.array(levels), axis=0).tolist()
        return low, low + _SPREAD * max(high - low, 1e-12)

    @property
    def kept(self) -> list[Kept]:
        """What is kept, in the order of the test split."""
        return [self._kept[index] for index in sorted(self._kept)]


def fair_share(counts: Mapping[str, int], total: int) -> int:
    """Return how many of each category may be taken, small ones whole, within a total."""
    left = total
    for taken, count in enumerate(sorted(counts.values())):
        share = left // (len(counts) - taken)
        if share < count:
            return share
        left -= count
    return total


def pick(samples: Sequence[Sample], most: int, num_picked: int | None = None) -> set[int]:
    """Choose images of each category, its defects (and normal) in turn; indices.

    Args:
        samples: The images.
        most: A category of no more images is taken whole.
        num_picked: Images of each other category, by default as many.
    """
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        groups[sample.category][sample.defect].append(index)
    picked: set[int] = set()
    for defects in groups.values():
        in_turn = turns(list(defects.values()))
        count = most if len(in_turn) <= most or num_picked is None else num_picked
        picked.update(in_turn[:count])
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


def _any_defective(mask: Tensor) -> NDArray[np.bool_]:
    if mask.shape[-1] > MASK_SIDE:
        mask = F.adaptive_max_pool2d(mask[None].float(), MASK_SIDE)[0] > 0
    return np.asarray(mask.numpy(), dtype=np.bool_)


def _thumbnail(picture: Tensor) -> NDArray[np.uint8]:
    pixels = shrunk(picture.float().cpu(), MAP_SIDE)
    return np.asarray(pixels.round().byte().permute(1, 2, 0).numpy())
