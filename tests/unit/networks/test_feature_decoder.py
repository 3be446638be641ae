import pytest
import torch

from omiad.errors import InputError
from omiad.networks import FeatureDecoder


@pytest.mark.parametrize(("grid", "image"), [(16, 224), (32, 224), (8, 32), (5, 23), (8, 8)])
def test_a_picture_has_the_images_size_and_the_range_of_colours(
    grid: int, image: int, generator: torch.Generator
) -> None:
    decoder = FeatureDecoder(6, feature_size=grid, image_size=image, width=32)
    drawn = decoder(100 * torch.randn(2, 6, grid, grid, generator=generator))
    assert drawn.shape == (2, 3, image, image)
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_gradients_reach_every_parameter(generator: torch.Generator) -> None:
    decoder = FeatureDecoder(6, feature_size=4, image_size=16, width=32)
    decoder(torch.randn(2, 6, 4, 4, generator=generator)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize("sizes", [(0, 32), (8, 7)])
def test_sizes_that_cannot_be_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="needs positive sizes and an image no smaller than"):
        FeatureDecoder(6, feature_size=sizes[0], image_size=sizes[1])
