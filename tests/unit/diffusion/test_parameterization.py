import pytest
import torch
from torch import Tensor, nn

from omiad.diffusion import Denoiser, NoiseSchedule
from omiad.errors import InputError


class Answer(nn.Module):
    """A network that always returns the same output."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.answer


@pytest.mark.parametrize("t", [1, 300, 960, 1000])
@pytest.mark.parametrize("parameterization", ["v", "epsilon", "x0"])
def test_every_parameterization_gives_the_exact_pair(
    parameterization: str, t: int, generator: torch.Generator
) -> None:
    schedule = NoiseSchedule(dtype=torch.float64)
    x_0, noise = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64)
    steps = torch.full((2,), t)
    alpha, sigma = schedule.amplitudes(steps)
    answers = {"v": alpha * noise - sigma * x_0, "epsilon": noise, "x0": x_0}
    denoiser = Denoiser(
        Answer(answers[parameterization]),
        schedule,
        parameterization=parameterization,  # type: ignore[arg-type]
    )
    estimate = denoiser(schedule.add_noise(x_0, noise, steps), steps)
    torch.testing.assert_close(estimate.x_0, x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(estimate.noise, noise, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameterization", ["v", "epsilon", "x0"])
def test_the_pair_is_float32_for_a_half_precision_output(parameterization: str) -> None:
    schedule = NoiseSchedule()
    network = Answer(torch.ones(1, 1, 2, 2, dtype=torch.bfloat16))
    denoiser = Denoiser(network, schedule, parameterization=parameterization)  # type: ignore[arg-type]
    estimate = denoiser(torch.ones(1, 1, 2, 2), torch.tensor([960]))
    assert estimate.x_0.dtype == estimate.noise.dtype == torch.float32


def test_an_unknown_parameterization_is_rejected() -> None:
    with pytest.raises(InputError, match=r"parameterization .* got 'score'"):
        Denoiser(nn.Identity(), NoiseSchedule(), parameterization="score")  # type: ignore[arg-type]
