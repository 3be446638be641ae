"""Means over bands of timesteps: at which noise an error or a signal lies."""

from itertools import pairwise

import torch
from torch import Tensor


class TimestepBands:
    """Mean of a value for each of a few equal bands of timesteps, gathered over many batches.

    Args:
        last: The noisiest step; the bands divide 1..last.
        num_bands: Number of bands.
    """

    def __init__(self, last: int, num_bands: int = 4) -> None:
        self._sums = torch.zeros(2, num_bands)
        edges = [round(last * i / num_bands) for i in range(num_bands + 1)]
        self.names = [f"t{low + 1}_{high}" for low, high in pairwise(edges)]
        self._edges = torch.tensor(edges[1:-1])

    @torch.no_grad()
    def update(self, t: Tensor, values: Tensor) -> None:
        """Add one value (B,) for each step t (B,) in 1..last; nothing leaves the device."""
        band = torch.bucketize(t, self._edges.to(t.device))
        added = torch.stack([values.float(), torch.ones_like(values, dtype=torch.float32)])
        self._sums = self._sums.to(t.device).index_add(1, band, added)

    def means(self) -> dict[str, float]:
        """Return the mean of each band that had a value, by name, and begin anew."""
        total, count = self._sums.tolist()
        self._sums = torch.zeros_like(self._sums)
        return {n: s / c for n, s, c in zip(self.names, total, count, strict=True) if c}
