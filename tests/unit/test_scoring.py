import numpy as np
import pytest
import torch
from scipy import ndimage

from omiad.errors import InputError
from omiad.scoring import (
    Edges,
    Scoring,
    gaussian_blur,
    highest_window,
    map_scale,
    residual_norm,
)


def test_the_norm_is_taken_over_channels(generator: torch.Generator) -> None:
    residual = torch.randn(2, 5, 4, 4, generator=generator)
    expected = np.sqrt((residual.numpy() ** 2).sum(1, keepdims=True))
    np.testing.assert_allclose(residual_norm(residual), expected, rtol=1e-6)


@pytest.mark.parametrize("edges", ["mirror", "reflect", "zero"])
@pytest.mark.parametrize(("side", "sigma"), [(32, 2.0), (33, 0.7), (5, 4.0)])
def test_blur_equals_scipys(
    edges: Edges, side: int, sigma: float, generator: torch.Generator
) -> None:
    maps = torch.rand(3, side, side + 2, generator=generator)
    mode = {"zero": "constant"}.get(edges, edges)
    for radius in (None, 2):
        theirs = ndimage.gaussian_filter(maps.numpy(), (0, sigma, sigma), mode=mode, radius=radius)
        ours = gaussian_blur(maps, sigma, edges=edges, radius=radius)
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_scale_of_maps_leaves_normal_images_dark() -> None:
    low, high = map_scale(torch.arange(101.0).view(1, 101))
    assert (low, high) == (50, 50 + 2.5 * 49)
    low, high = map_scale(torch.full((2, 3), 7.0))
    assert low == 7 < high


def test_the_highest_window_is_the_highest_window_mean(generator: torch.Generator) -> None:
    maps = torch.rand(2, 9, 9, generator=generator)
    windows = np.lib.stride_tricks.sliding_window_view(maps.numpy(), (4, 4), axis=(1, 2))
    expected = windows.mean((-1, -2)).max((1, 2))
    np.testing.assert_allclose(highest_window(maps, 4), expected, rtol=1e-5)


def test_a_half_precision_residual_is_measured_in_float32() -> None:
    norm = residual_norm(torch.full((1, 300, 2, 2), 16.0, dtype=torch.float16))
    assert norm.dtype == torch.float32
    assert torch.isfinite(norm).all()  # the square, 76,800, overflows float16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_size": 0}, "pool_size"),
        ({"blur_sigma": -1.0}, "blur_sigma .* -1"),
        ({"blur_sigma": float("nan")}, "blur_sigma .* nan"),
        ({"blur_sigma": float("inf")}, "blur_sigma .* inf"),
        ({"memory_size": -1}, "memory_size .* -1"),
        ({"residual_weight": -0.5}, "residual_weight .* -0.5"),
        ({"residual_weight": float("nan")}, "residual_weight .* nan"),
        ({"residual_whitening": -1.0}, "residual_whitening .* -1"),
        ({"memory": "none"}, "memory must be shared or product, but got 'none'"),
        ({"memory": "product", "residual_weight": 1.5}, "residual_weight .* at most 1 .* 1.5"),
    ],
)
def test_impossible_scoring_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Scoring(**arguments)  # type: ignore[arg-type]
