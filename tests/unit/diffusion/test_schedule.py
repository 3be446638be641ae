import pytest
import torch

from omiad.diffusion import NoiseSchedule
from omiad.errors import InputError


def test_the_linear_schedule_has_the_published_values() -> None:
    schedule = NoiseSchedule(dtype=torch.float64)
    alpha_bar = schedule.alpha[torch.tensor([1, 300, 960, 990, 1000]) - 1] ** 2
    published = [0.9999, 0.396420, 8.91263e-5, 4.93486e-5, 4.03583e-5]
    assert alpha_bar.tolist() == pytest.approx(published, rel=2e-6)


def test_a_chain_of_two_steps_has_the_products_worked_by_hand() -> None:
    schedule = NoiseSchedule(2, beta_start=0.1, beta_end=0.2, dtype=torch.float64)
    assert (schedule.alpha**2).tolist() == pytest.approx([0.9, 0.72], rel=1e-12)
    assert (schedule.sigma**2).tolist() == pytest.approx([0.1, 0.28], rel=1e-12)


def test_each_sample_has_its_own_step(generator: torch.Generator) -> None:
    schedule = NoiseSchedule()
    x_0, noise = torch.randn(2, 3, 3, 4, 4, generator=generator)
    x_t = schedule.add_noise(x_0, noise, torch.tensor([1, 500, 1000]))
    expected = schedule.alpha[499] * x_0[1] + schedule.sigma[499] * noise[1]
    torch.testing.assert_close(x_t[1], expected)


def test_the_matching_step_inverts_the_noise_to_signal_ratio() -> None:
    schedule = NoiseSchedule()
    assert schedule.noise_to_signal(960, 6.8) == pytest.approx(105.92 / 6.8, rel=1e-3)
    assert schedule.noise_to_signal(500, 1.0) == pytest.approx(3.4241, rel=1e-4)
    assert schedule.matching_step(schedule.noise_to_signal(736, 2.0), 2.0) == 736


def test_a_step_outside_the_schedule_is_rejected() -> None:
    with pytest.raises(InputError, match=r"t_init .* got 1001"):
        NoiseSchedule().check_step(1001, "t_init")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_timesteps": 1}, "num_timesteps"),
        ({"beta_start": 0.5, "beta_end": 0.1}, "beta_start 0.5"),
    ],
)
def test_an_impossible_schedule_is_rejected(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NoiseSchedule(**arguments)  # type: ignore[arg-type]
