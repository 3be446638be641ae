import pytest
import torch
from gaussian import SCHEDULE
from torch import nn

from omiad.diffusion import Denoiser, NoiseSchedule
from omiad.errors import InputError

PARAMETERIZATIONS = ("v", "epsilon", "x0")


def denoiser(parameterization: str, schedule: NoiseSchedule) -> Denoiser:
    return Denoiser(nn.Identity(), schedule, parameterization=parameterization)  # type: ignore[arg-type]


@pytest.mark.parametrize("t", [1, 300, 960, 1000])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_every_parameterization_gives_the_exact_pair(
    parameterization: str, t: int, generator: torch.Generator
) -> None:
    x_0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    steps = torch.full((2,), t)
    alpha, sigma = SCHEDULE.amplitudes(steps)
    outputs = {"v": alpha * noise - sigma * x_0, "epsilon": noise, "x0": x_0}
    x_t = SCHEDULE.add_noise(x_0, noise, steps)
    pair = denoiser(parameterization, SCHEDULE).interpret(outputs[parameterization], x_t, steps)
    torch.testing.assert_close(pair, (x_0, noise), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
def test_the_pair_is_float32_for_a_half_precision_output(parameterization: str) -> None:
    half = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    pair = denoiser(parameterization, NoiseSchedule()).interpret(half, half, torch.tensor([960]))
    assert pair.x_0.dtype == pair.noise.dtype == torch.float32


def test_an_unknown_parameterization_is_rejected() -> None:
    with pytest.raises(InputError, match=r"parameterization .* got 'score'"):
        denoiser("score", SCHEDULE)
