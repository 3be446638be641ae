import pytest
import torch

from omiad.errors import InputError
from omiad.networks import FeatureDecoder


@pytest.mark.parametrize(("grid", "image"), [(16, 224), (32, 224), (8, 32), (5, 23), (8, 8)])
def test_a_picture_has_the_size_of_the_image_and_lies_in_0_to_1(
    grid: int, image: int, generator: torch.Generator
) -> None:
    decoder = FeatureDecoder(6, feature_size=grid, image_size=image, width=32)
    picture = decoder(100 * torch.randn(2, 6, grid, grid, generator=generator))
    assert picture.shape == (2, 3, image, image)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_gradients_reach_every_parameter(generator: torch.Generator) -> None:
    decoder = FeatureDecoder(6, feature_size=4, image_size=16, width=32)
    decoder(torch.randn(2, 6, 4, 4, generator=generator)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize(("grid", "image"), [(0, 32), (8, 7)])
def test_impossible_sizes_are_rejected(grid: int, image: int) -> None:
    with pytest.raises(InputError, match=f"feature_size {grid}, image_size {image}"):
        FeatureDecoder(6, feature_size=grid, image_size=image)
