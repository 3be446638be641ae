import pytest
import torch

from omiad.diffusion import Masking
from omiad.diffusion.masking import Granularity
from omiad.errors import InputError


def test_the_drop_rate_is_p_of_t(generator: torch.Generator) -> None:
    t = torch.tensor([1, 500, 960, 1000])
    uniform = torch.rand(4, *Masking().uniform_shape((8, 256, 256)), generator=generator)
    dropped = 1 - Masking().keep(uniform, t, 1000).mean((1, 2, 3))
    # The standard error of 65,536 Bernoulli draws is at most 0.002.
    assert dropped.tolist() == pytest.approx([0.1, 0.175, 0.3765, 0.4], abs=0.008)
    assert Masking(p_min=0, p_max=0).keep(uniform, t, 1000).all()


@pytest.mark.parametrize(
    ("granularity", "block", "shape"),
    [
        ("token", 1, (1, 4, 4)),
        ("token", 2, (1, 2, 2)),
        ("element", 1, (5, 4, 4)),
        ("element", 2, (5, 2, 2)),
        ("channel", 2, (5, 1, 1)),
    ],
)
def test_granularity_and_block_decide_the_shape_of_what_is_hidden(
    granularity: Granularity, block: int, shape: tuple[int, int, int], generator: torch.Generator
) -> None:
    masking = Masking(p_min=0.5, p_max=0.5, granularity=granularity, block=block)
    assert masking.uniform_shape((5, 4, 4)) == shape
    uniform = torch.rand(2, *shape, generator=generator)
    keep = masking.keep(uniform, torch.tensor([1, 1]), 1000)
    # Each draw decides one piece, whole.
    expected = (uniform >= 0.5).float()
    if granularity != "channel":
        expected = expected.repeat_interleave(block, 2).repeat_interleave(block, 3)
    assert torch.equal(keep, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p_min": 0.5, "p_max": 0.4}, "p_max 0.4"),
        ({"p_max": 1.0}, "p_max 1.0"),
        ({"block": 0}, "masking.block"),
        ({"granularity": "row"}, "masking.granularity"),
    ],
)
def test_impossible_masking_is_rejected(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Masking(**arguments)  # type: ignore[arg-type]


def test_a_block_that_does_not_divide_the_grid_is_rejected() -> None:
    with pytest.raises(InputError, match="block 3 for a grid of 8 x 8"):
        Masking(block=3).uniform_shape((5, 8, 8))
