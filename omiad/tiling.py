"""A large photograph as overlapping tiles: cut before the backbone, stitched after scoring.

A photograph is resized to a canvas of rows x columns tiles of `image_size` pixels, each of which
overlaps its neighbours by an eighth of its side. The grid of tiles therefore chooses both the scale
and the aspect ratio: [1, 3] suits a photograph that is three times as wide as high. Each tile is an
image of its own to the backbone and to the network, and a sample of its own in training.

Between both ends, the features of a photograph are a mosaic (C, rows h, columns w): the grids of
its tiles side by side. The cache keeps one mosaic of a photograph, and whatever looks at features
cell by cell (statistics, memory, the description of a product) needs to know of no tiles.

Maps are stitched with weights that rise smoothly from 0 at the border of a tile, where the backbone
sees the least, to 1 at the end of the overlap. The weights of all tiles sum to 1 at every pixel.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.errors import InputError

Tiles = tuple[int, int]
"""Rows and columns of tiles."""

WHOLE: Tiles = (1, 1)
"""The photograph is one tile."""

MOST_TILES = 64
"""Tiles of one photograph, at most; they are scored together."""

OVERLAP = 8
"""A tile overlaps its neighbours by its side divided by this number."""

LARGEST_ZOOM = 2
"""Times that a photograph with several tiles may be enlarged, which shows nothing new."""


INPUT_SIDE = 448
"""Side of the photographs that models for photographs of one's own take (configs)."""

MOST_SHRUNK = 4
"""Photographs are shrunk so many times, at most, by the grid that `recommended` returns."""

FAR_FROM_SQUARE = 1.75
"""A photograph is far from square if one side is so many times as long as the other."""


def recommended(width: int, height: int) -> Tiles:
    """Return the grid of tiles of `INPUT_SIDE` pixels that suits a photograph.

    The shorter side has one tile for every `MOST_SHRUNK` * `INPUT_SIDE` pixels begun. The longer
    side has as many as its share of the aspect ratio, if the photograph is far from square,
    otherwise as many as the shorter side. There are never more than `MOST_TILES`, and a photograph
    that is too small for its grid stays whole.
    """
    shorter, longer = sorted((width, height))
    short = min(math.ceil(shorter / (MOST_SHRUNK * INPUT_SIDE)), math.isqrt(MOST_TILES))
    ratio = longer / shorter
    long = round(short * ratio) if ratio >= FAR_FROM_SQUARE else short
    long = min(long, MOST_TILES // short)
    tiles = (short, long) if height <= width else (long, short)
    return tiles if Tiling(tiles, INPUT_SIDE).suits(width, height) else WHOLE


@dataclass(frozen=True)
class Tiling:
    """How a photograph is cut into tiles; a single tile leaves everything as it is.

    Attributes:
        tiles: Rows and columns.
        side: Side of a tile in pixels.

    Raises:
        InputError: If there is no tile, or if there are more than `MOST_TILES`.
    """

    tiles: Tiles
    side: int

    def __post_init__(self) -> None:
        """Refuse a grid without tiles, or with too many."""
        rows, columns = self.tiles
        if min(self.tiles) < 1 or self.count > MOST_TILES:
            raise InputError(
                f"--data.tiles takes rows and columns of at least 1 with at most {MOST_TILES} "
                f"tiles in all, but got [{rows}, {columns}]."
            )

    @classmethod
    def of(cls, tiles: Sequence[int] | None, side: int) -> "Tiling":
        """Return the tiling of rows and columns as an option gives them; None is a single tile.

        Raises:
            InputError: If there are not two numbers, or if they are out of range.
        """
        if tiles is not None and len(tiles) != len(WHOLE):
            raise InputError(f"--data.tiles takes two numbers, rows and columns, but got {tiles}.")
        rows, columns = tiles or WHOLE
        return cls((rows, columns), side)

    @property
    def count(self) -> int:
        """Number of tiles of a photograph."""
        return self.tiles[0] * self.tiles[1]

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width in pixels to which a photograph is resized."""
        height, width = (n * self.side - (n - 1) * (self.side // OVERLAP) for n in self.tiles)
        return height, width

    def at_once(self, photographs: int) -> int:
        """Return how many photographs have about as many tiles as that many single tiles."""
        return max(1, photographs // self.count)

    def suits(self, width: int, height: int) -> bool:
        """Return whether a photograph is large enough: the canvas has at most twice its sides."""
        high, wide = self.canvas
        is_small = high > LARGEST_ZOOM * height or wide > LARGEST_ZOOM * width
        return self.count == 1 or not is_small

    def check(self, width: int, height: int, name: str) -> None:
        """Refuse a photograph that is too small; messages call it by the name.

        Raises:
            InputError: If the tiling does not suit a photograph of that size.
        """
        high, wide = self.canvas
        if not self.suits(width, height):
            raise InputError(
                f"{name} has {width} x {height} pixels, too few for --data.tiles "
                f"[{self.tiles[0]}, {self.tiles[1]}], which spread a photograph over {wide} x "
                f"{high} pixels. Give a larger photograph, or train with fewer tiles or a "
                f"smaller --data.image_size."
            )

    def cut(self, images: Tensor) -> Tensor:
        """Cut canvases (B, C, H, W) into tiles (B T, C, S, S), row by row of each."""
        if self.count == 1:
            return images
        parts = [images[..., rows, columns] for rows, columns in self._places()]
        return torch.stack(parts, 1).flatten(0, 1)

    def stitch(self, tiles: Tensor) -> Tensor:
        """Blend tiles (B T, C, S, S), float, to canvases (B, C, H, W)."""
        if self.count == 1:
            return tiles
        parts = tiles.reshape(-1, self.count, *tiles.shape[1:])
        canvas = tiles.new_zeros(len(parts), tiles.shape[1], *self.canvas)
        weights = [_weights(n, self.side) for n in self.tiles]
        for number, (rows, columns) in enumerate(self._places()):
            row, column = divmod(number, self.tiles[1])
            weight = weights[0][row][:, None] * weights[1][column]
            canvas[..., rows, columns] += weight.to(canvas) * parts[:, number]
        return canvas

    def split(self, mosaic: Tensor) -> Tensor:
        """Return the tiles (B T, C, h, w) of mosaics of features (B, C, rows h, columns w)."""
        parts = [self.tile(mosaic, number) for number in range(self.count)]
        return mosaic if self.count == 1 else torch.stack(parts, 1).flatten(0, 1)

    def tile(self, mosaic: Tensor, number: int) -> Tensor:
        """Return the features (..., h, w) of one tile of a mosaic (..., rows h, columns w)."""
        height, width = (n // k for n, k in zip(mosaic.shape[-2:], self.tiles, strict=True))
        row, column = divmod(number, self.tiles[1])
        rows = slice(row * height, (row + 1) * height)
        return mosaic[..., rows, column * width : (column + 1) * width]

    def join(self, tiles: Tensor) -> Tensor:
        """Return mosaics of features (B, C, rows h, columns w) of tiles (B T, C, h, w)."""
        if self.count == 1:
            return tiles
        grid = tiles.reshape(-1, *self.tiles, *tiles.shape[1:])  # B rows columns C h w
        return torch.cat(torch.cat(grid.unbind(2), dim=-1).unbind(1), dim=-2)

    def stitching(self, enlarging: NDArray[np.floating]) -> list[NDArray[np.float64]]:
        """Return what enlarges the lines of a mosaic to those of a canvas, blended as by `stitch`.

        Args:
            enlarging: Matrix (S, h) that enlarges a line of one tile.

        Returns:
            Matrices for columns of cells (H, rows h) and for rows of cells (W, columns h).
        """
        matrices = []
        for n in self.tiles:
            weights = _weights(n, self.side).numpy()
            places, cells = self._lines(n), enlarging.shape[1]
            matrix = np.zeros((places[-1].stop, n * cells))
            for i, (place, weight) in enumerate(zip(places, weights, strict=True)):
                matrix[place, i * cells : (i + 1) * cells] += weight[:, None] * enlarging
            matrices.append(matrix)
        return matrices

    def _places(self) -> list[tuple[slice, slice]]:
        """Return where each tile lies on the canvas."""
        rows, columns = map(self._lines, self.tiles)
        return [(row, column) for row in rows for column in columns]

    def _lines(self, number: int) -> list[slice]:
        """Return where each of so many tiles in a line lies on the canvas."""
        step = self.side - self.side // OVERLAP
        return [slice(i * step, i * step + self.side) for i in range(number)]


def _weights(number: int, side: int) -> Tensor:
    """Return the weights (number, side) of a line of tiles, which sum to 1 where tiles overlap."""
    overlap = side // OVERLAP
    x = (torch.arange(overlap, dtype=torch.float64) + 0.5) / max(1, overlap)
    rise = x * x * (3 - 2 * x)  # without a kink at either end
    weights = torch.ones(number, side, dtype=torch.float64)
    weights[1:, :overlap] = rise
    weights[:-1, side - overlap :] = 1 - rise
    return weights
