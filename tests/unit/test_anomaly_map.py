import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.anomaly_map import AnomalyMap
from omiad.errors import InputError
from omiad.scoring import Scoring, gaussian_blur, highest_window
from omiad.tiling import Tiling


@pytest.mark.parametrize("tiles", [(1, 1), (2, 3)])
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_maps_and_scores_are_those_of_upsampling_stitching_and_blurring(tiles, sigma, generator):
    tiling = Tiling(tiles, 32)
    distance = torch.rand(2, 1, 4 * tiles[0], 4 * tiles[1], generator=generator)
    pixels = AnomalyMap(tiling, 4, Scoring(pool_size=5, blur_sigma=sigma))
    enlarged = F.interpolate(tiling.split(distance), 32, mode="bilinear", align_corners=True)
    sharp = tiling.stitch(enlarged)[:, 0]
    expected = gaussian_blur(sharp, sigma, edges="mirror")
    torch.testing.assert_close(pixels(distance), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.score(distance), highest_window(sharp, 5))


def test_a_map_is_upsampled_with_aligned_corners(generator):
    cells = torch.rand(2, 1, 4, 4, generator=generator)
    maps, norm = AnomalyMap(Tiling((1, 1), 7), 4, Scoring(pool_size=1))(cells), cells[:, 0]
    # Seven pixels with aligned corners lie at every half cell of four.
    torch.testing.assert_close(maps[:, ::2, ::2], norm)
    between = (norm[:, 0, 0] + norm[:, 0, 1] + norm[:, 1, 0] + norm[:, 1, 1]) / 4
    torch.testing.assert_close(maps[:, 1, 1], between)


def test_a_map_is_the_same_under_the_callers_autocast(generator):
    distance = torch.rand(1, 1, 8, 8, generator=generator)
    pixels = AnomalyMap(Tiling((1, 1), 16), 8, Scoring(pool_size=4, blur_sigma=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps, score = pixels(distance), pixels.score(distance)
    assert maps.dtype == score.dtype == torch.float32
    assert torch.equal(maps, pixels(distance))


def test_a_window_larger_than_the_map_is_refused():
    with pytest.raises(InputError, match="pool_size 16 is larger than the map of 8 x 8"):
        AnomalyMap(Tiling((1, 1), 8), 4, Scoring())
