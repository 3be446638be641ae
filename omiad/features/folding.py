"""Fine feature maps on a coarse grid: the values of several cells as channels of one cell.

The network works on the coarse grid, where it costs little, and still sees every value of a stage
that is finer. Distances between patches are measured on the fine grid, where small defects are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.resampling import resample


@dataclass(frozen=True)
class Folding:
    """Which stages of a backbone are folded, and how many cells of theirs become one.

    Attributes:
        fold: Rows and columns of fine cells in one cell of the grid; 1 folds nothing.
        channels: Channels of each stage as the backbone gives it.
        is_folded: Whether each stage is folded; a stage that is coarser than the fine grid is not.
    """

    fold: int
    channels: Sequence[int]
    is_folded: Sequence[bool]

    @property
    def channels_per_stage(self) -> list[int]:
        """Channels of each stage on the grid."""
        both = zip(self.channels, self.is_folded, strict=True)
        return [c * self.fold**2 if folded else c for c, folded in both]

    def folded(self, x: Tensor, stage: int) -> Tensor:
        """Fold the map of a stage (B, c, H, W), which has the fine grid if the stage is folded."""
        return F.pixel_unshuffle(x, self.fold) if self.is_folded[stage] else x

    def unfolded(self, x: Tensor) -> list[Tensor]:
        """Return each stage of features (B, C, h, w) on the fine grid (B, c, fold h, fold w).

        A stage that is not folded is enlarged, bilinear.
        """
        parts = torch.split(x, self.channels_per_stage, dim=1)
        return [
            F.pixel_shuffle(part, self.fold) if folded else self.enlarged(part)
            for part, folded in zip(parts, self.is_folded, strict=True)
        ]

    def enlarged(self, x: Tensor) -> Tensor:
        """Enlarge maps (B, c, h, w), bilinear, to the fine grid (B, c, fold h, fold w)."""
        fine = (x.shape[-2] * self.fold, x.shape[-1] * self.fold)
        return resample(x, fine, corners=False)
