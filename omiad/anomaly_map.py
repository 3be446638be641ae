"""The distances of cells as pixels and as a score, by one matrix for rows and one for columns.

Everything between a distance and its pixels is linear and treats rows like columns: cells are
enlarged to pixels, bilinear with aligned corners (UniAD, models/reconstructions/uniad.py), tiles
are blended, and maps are blurred. The means over the windows of a map are linear, too. The product
of these matrices is a constant, so nothing is computed at the size of a photograph but the map.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from omiad.errors import InputError
from omiad.resampling import resizing_matrix
from omiad.scoring import Scoring, blur_matrix
from omiad.tiling import Tiling


class AnomalyMap(nn.Module):
    """Maps and image scores of the distance of each cell from normal ones.

    Args:
        tiling: How photographs are cut into tiles.
        cells: Rows and columns of cells of a tile.
        scoring: Blur of the map, and window of the score.

    Raises:
        InputError: If the window is larger than the map.
    """

    map_rows: Tensor
    map_columns: Tensor
    window_rows: Tensor
    window_columns: Tensor

    def __init__(self, tiling: Tiling, cells: int, scoring: Scoring) -> None:
        super().__init__()
        height, width = tiling.canvas
        if scoring.pool_size > min(height, width):
            raise InputError(
                f"scoring.pool_size {scoring.pool_size} is larger than the map of {height} x "
                f"{width} pixels. Lower --model.scoring.pool_size."
            )
        enlarging = resizing_matrix(cells, tiling.side, corners=True)
        for axis, line in zip(("rows", "columns"), tiling.stitching(enlarging), strict=True):
            blurred = line
            if scoring.blur_sigma > 0:
                blurred = blur_matrix(len(line), scoring.blur_sigma, edges="mirror") @ line
            self._keep(f"map_{axis}", blurred)
            self._keep(f"window_{axis}", _window_means(line, scoring.pool_size))

    def _keep(self, name: str, matrix: NDArray[np.float64]) -> None:
        self.register_buffer(name, torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """Return maps (B, H, W), float32 and blurred, of the distance of each cell (B, 1, h, w)."""
        return _between(self.map_rows, distance, self.map_columns)

    def score(self, distance: Tensor) -> Tensor:
        """Return the highest mean (B,) over a window of the maps before the blur.

        Source: UniAD, utils/eval_helper.py, EvalImageMax.
        """
        return _between(self.window_rows, distance, self.window_columns).amax(dim=(1, 2))


def _window_means(lines: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return the mean (H - side + 1, h) of each `side` successive rows of a matrix (H, h)."""
    windows = np.lib.stride_tricks.sliding_window_view(lines, side, axis=0)
    means: NDArray[np.float64] = windows.mean(-1)
    return means


def _between(rows: Tensor, distance: Tensor, columns: Tensor) -> Tensor:
    with torch.autocast(distance.device.type, enabled=False):  # half precision is too coarse
        return rows @ (distance[:, 0].float() @ columns.T)
