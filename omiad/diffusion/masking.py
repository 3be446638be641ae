"""Adaptive masking of the clean features in AMDM training (paper eqs. 6 to 8)."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.errors import InputError

Granularity = Literal["token", "element", "channel"]


@dataclass(frozen=True)
class Masking:
    """How much of the features is hidden at step t, and in pieces of which shape.

    The drop probability is p(t) = p_min + (p_max - p_min) (t / T)^exponent, eq. 7. Equal bounds
    give the fixed-mask ablation; bounds of zero turn masking off.

    Deviation: eq. 8 prints M ~ Bernoulli(p) and multiplies the features by M. That would keep more
    features at high noise, against the text. Here p is the probability of dropping a feature.

    Attributes:
        p_min: Drop probability as t goes to 0.
        p_max: Drop probability at t = T.
        exponent: Growth rate (the paper's k, printed as kappa in eq. 7).
        granularity: "token" drops a position in all channels, "element" drops single values, and
            "channel" drops whole channels.
        block: Side of the dropped squares in grid cells; "channel" ignores it.

    Raises:
        InputError: If a field is out of range.
    """

    p_min: float = 0.1
    p_max: float = 0.4
    exponent: float = 2.0
    granularity: Granularity = "token"
    block: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.p_min <= self.p_max < 1:
            raise InputError(
                f"masking needs 0 <= p_min <= p_max < 1, but got p_min {self.p_min} and p_max "
                f"{self.p_max}."
            )
        if self.granularity not in get_args(Granularity):
            raise InputError(
                f"masking.granularity must be one of {', '.join(get_args(Granularity))}, but got "
                f"'{self.granularity}'."
            )
        if self.block < 1:
            raise InputError(f"masking.block must be at least 1, but got {self.block}.")

    def uniform_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape (c, h, w) of the draws that decide the mask of one sample (C, H, W)."""
        channels, height, width = shape
        if self.granularity == "channel":
            return (channels, 1, 1)
        if height % self.block or width % self.block:
            raise InputError(
                f"masking.block must divide the feature grid, but got block {self.block} for a "
                f"grid of {height} x {width}."
            )
        depth = channels if self.granularity == "element" else 1
        return (depth, height // self.block, width // self.block)

    def keep(self, uniform: Tensor, t: Tensor, num_timesteps: int) -> Tensor:
        """Return the mask M(t) of eqs. 6, 8, which broadcasts to (B, C, H, W): 1 keeps and 0 hides.

        Args:
            uniform: Draws from U[0, 1), (B, c, h, w) with `uniform_shape` for each sample.
            t: Steps (B,), integers in 1..T.
            num_timesteps: T.
        """
        p = self.p_min + (self.p_max - self.p_min) * (t / num_timesteps) ** self.exponent
        keep = (uniform >= p.view(-1, 1, 1, 1)).to(uniform.dtype)
        if self.block > 1 and self.granularity != "channel":
            keep = F.interpolate(keep, scale_factor=float(self.block), mode="nearest")
        return keep
