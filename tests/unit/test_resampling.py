import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from omiad.resampling import resample

SIDES = ((56, 28), (37, 16), (28, 28), (7, 28), (5, 1), (1, 4))


@pytest.mark.parametrize(("source", "size"), SIDES)
def test_two_matrices_resize_as_torch_does(
    source: int, size: int, generator: torch.Generator
) -> None:
    maps = torch.randn(2, 3, source, source + 1, generator=generator)
    for corners, how in ((True, {"align_corners": True}), (False, {"antialias": True})):
        found = resample(maps, size, corners=corners)
        expected = F.interpolate(maps.double(), (size, size), mode="bilinear", **how)
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)


def test_half_precision_around_it_does_not_round_the_maps(generator: torch.Generator) -> None:
    maps = torch.randn(1, 2, 9, 9, generator=generator)
    expected = resample(maps, 4, corners=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(resample(maps, 4, corners=True), expected)
