import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from omiad.conformal import normals_needed, p_values, rate_bound, smallest_rate, threshold
from omiad.errors import InputError

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


@given(SCORES, SCORES)
def test_a_p_value_is_the_share_of_normals_that_score_as_high(
    scores: list[float], normal: list[float]
) -> None:
    expected = [(1 + sum(n >= s for n in normal)) / (len(normal) + 1) for s in scores]
    found = p_values(torch.tensor(scores), torch.tensor(normal))
    assert found.tolist() == pytest.approx(expected)


@given(SCORES, SCORES, st.integers(1, 99))
def test_a_score_is_above_the_threshold_if_and_only_if_its_p_value_is_at_most_the_rate(
    scores: list[float], normal: list[float], percent: int
) -> None:
    if percent * (len(normal) + 1) < 100:
        with pytest.raises(InputError, match=str(normals_needed(percent / 100))):
            threshold(torch.tensor(normal), percent / 100)
        return
    limit = threshold(torch.tensor(normal), percent / 100)
    values = p_values(torch.tensor(scores), torch.tensor(normal)).tolist()
    for score, p_value in zip(scores, values, strict=True):
        count = 1 + sum(n >= score for n in normal)  # in whole numbers, so without rounding
        assert (score > limit) == (100 * count <= percent * (len(normal) + 1))
        assert (score > limit) == (p_value <= percent / 100)


@pytest.mark.parametrize(("num", "rate"), [(99, 0.01), (100, 0.05), (30, 0.1), (19, 0.05)])
def test_false_alarms_of_new_normals_stay_at_the_stated_rate(num: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(num)
    draws = torch.randn(4000, num + 50, generator=generator).exp()  # not a normal distribution
    alarms = torch.stack([(d[num:] > threshold(d[:num], rate)).float().mean() for d in draws])
    exact = math.floor(rate * (num + 1) + 1e-9) / (num + 1)
    assert alarms.mean().item() == pytest.approx(exact, abs=4 * alarms.std().item() / 4000**0.5)
    assert exact <= rate + 1e-9


def test_one_calibration_exceeds_its_bound_five_times_in_a_hundred() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(20000, 99, generator=generator)  # the false-alarm rate of t is 1 - t
    rates = torch.stack([1 - u.sort(descending=True).values[4] for u in uniform])
    assert (rates > rate_bound(99, 0.05)).float().mean().item() == pytest.approx(0.05, abs=0.006)


def test_more_normals_support_lower_rates() -> None:
    assert smallest_rate(99) == 0.01
    assert [normals_needed(rate) for rate in (0.01, 0.05, 0.1, 1 / 3)] == [99, 19, 9, 2]
    assert rate_bound(3, 0.01) == 0


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_between_0_and_1(rate: float) -> None:
    with pytest.raises(InputError, match="false_alarms"):
        threshold(torch.zeros(100), rate)
