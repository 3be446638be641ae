import pytest
import torch

from omiad.diffusion import Masking
from omiad.errors import InputError


def drop_rate(masking: Masking, t: int, generator: torch.Generator) -> float:
    shape = masking.uniform_shape((8, 32, 32))
    uniform = torch.rand(64, *shape, generator=generator)
    return 1 - masking.keep(uniform, torch.full((64,), t), 1000).mean().item()


@pytest.mark.parametrize(("t", "rate"), [(1, 0.1), (500, 0.175), (960, 0.3765), (1000, 0.4)])
def test_the_drop_rate_is_p_of_t(t: int, rate: float, generator: torch.Generator) -> None:
    # The standard error of 65,536 Bernoulli draws is at most 0.002.
    assert drop_rate(Masking(), t, generator) == pytest.approx(rate, abs=0.008)


def test_the_drop_probability_rises_with_the_noise() -> None:
    p = Masking().drop_probability(torch.arange(1, 1001), 1000)
    assert (p.diff() > 0).all()


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("token", (1, 4, 4)), ("element", (5, 4, 4)), ("channel", (5, 1, 1))],
)
def test_the_granularity_decides_the_shape_of_the_mask(
    granularity: str, shape: tuple[int, ...]
) -> None:
    masking = Masking(granularity=granularity)  # type: ignore[arg-type]
    assert masking.uniform_shape((5, 4, 4)) == shape
    keep = masking.keep(torch.rand(2, *shape), torch.tensor([1000, 1000]), 1000)
    assert keep.shape == (2, *shape)
    assert set(keep.unique().tolist()) <= {0.0, 1.0}


def test_a_block_hides_whole_squares(generator: torch.Generator) -> None:
    masking = Masking(p_min=0.5, p_max=0.5, block=2)
    uniform = torch.rand(3, *masking.uniform_shape((5, 8, 8)), generator=generator)
    keep = masking.keep(uniform, torch.tensor([1, 1, 1]), 1000)
    squares = keep.view(3, 1, 4, 2, 4, 2)
    torch.testing.assert_close(squares.amax((3, 5)), squares.amin((3, 5)))


def test_bounds_of_zero_turn_masking_off(generator: torch.Generator) -> None:
    assert drop_rate(Masking(p_min=0, p_max=0), 1000, generator) == 0


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
