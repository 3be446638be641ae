"""The losses of ADD against numbers worked by hand and a closed form for Gaussian data."""

import pytest
import torch
from gaussian import SCHEDULE, gaussian_denoiser, quadrature
from torch import Tensor, nn

from omiad.diffusion.adversarial_diffusion import (
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    teacher_distance,
)

M, S = 1.5, 0.8
"""Mean and standard deviation of the data."""


def map_of(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def test_hinge_losses_are_averaged_over_positions_and_summed_over_heads() -> None:
    real, fake = [map_of(0.7, -0.2), map_of(3.0)], [map_of(-0.4, 0.9), map_of(0.5)]
    # First head, real: (0.3 + 1.2) / 2, fake: (0.6 + 1.9) / 2; second head: 0 and 1.5.
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(2.0 + 1.5)
    assert hinge_generator_loss(fake).item() == pytest.approx(-0.25 - 0.5)
    # Logits beyond the margins cost nothing.
    assert not hinge_discriminator_loss([map_of(1.1, 4.0)], [map_of(-1.2, -3.0)]).any()


def test_the_r1_penalty_of_a_linear_head_is_its_squared_weight_over_positions(
    generator: torch.Generator,
) -> None:
    head = nn.Conv2d(3, 1, 1)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1))
    inputs = [torch.randn(2, 3, 4, 5, generator=generator, requires_grad=True) for _ in range(2)]
    penalty = r1_penalty([head(x) for x in inputs], inputs)
    # d mean / d x = w / 20 at each of 20 positions: |w|^2 / 20 for each of two heads
    torch.testing.assert_close(penalty, torch.full((2,), 2 * 5.25 / 20))
    penalty.sum().backward()
    # d / d w of four times |w|^2 / 20 (two samples, two heads)
    torch.testing.assert_close(head.weight.grad, 4 * 2 * head.weight.detach() / 20)


@pytest.mark.parametrize(("mu", "tau"), [(0.3, 0.5), (0.3, 3.0), (1.5, 0.8)])
@pytest.mark.parametrize("t", [100, 300, 700])
def test_the_teacher_distance_pulls_to_the_mean_and_shrinks_the_spread(
    t: int, mu: float, tau: float
) -> None:
    z, noise, probability = quadrature(40)
    parameters = torch.tensor([mu, tau], dtype=torch.float64, requires_grad=True)
    x_g = parameters[0] + parameters[1] * z
    steps = torch.full((len(z),), t)
    estimate = gaussian_denoiser(M, S)(SCHEDULE.add_noise(x_g, noise, steps), steps).x_0
    weight = SCHEDULE.amplitudes(steps)[0].flatten()
    (probability * teacher_distance(x_g, estimate, weight)).sum().backward()
    a, sigma = SCHEDULE.alpha[t - 1].item(), SCHEDULE.sigma[t - 1].item()
    # x_g - x_0_hat = sigma^2 / V (x_g - M) - (a S^2 sigma / V) noise, V = a^2 S^2 + sigma^2
    pull = 2 * a * sigma**2 / (a**2 * S**2 + sigma**2)
    expected = [pull * (mu - M), pull * tau]
    assert parameters.grad.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)  # type: ignore[union-attr]
    # The spread shrinks even if the generator matches the data: ADD needs its discriminator.
    assert expected[1] > 0
