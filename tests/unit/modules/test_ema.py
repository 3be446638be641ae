import copy

import pytest
import torch
from torch import nn

from omiad.errors import InputError
from omiad.modules.ema import ema_decay, ema_update


def test_halflife_is_a_share_of_the_images_seen_up_to_a_cap() -> None:
    assert ema_decay(32, 64_000, fraction=0.05) == pytest.approx(0.5 ** (32 / 3200))
    assert ema_decay(32, 10**9, fraction=0.05) == pytest.approx(0.5 ** (32 / 500_000))
    assert ema_decay(32, 64, fraction=0.0) == 0.0  # no averaging


def test_a_short_run_leaves_little_of_the_initial_weights() -> None:
    left, seen = 1.0, 0
    for _ in range(1200):
        seen += 16
        left *= ema_decay(16, seen)
    assert left < 1e-6


def test_update_follows_three_lines_of_arithmetic(generator: torch.Generator) -> None:
    source = nn.Linear(3, 2)
    average = copy.deepcopy(source).requires_grad_(False)
    start = average.weight.clone()
    with torch.no_grad():
        source.weight.copy_(torch.randn(2, 3, generator=generator))
    ema_update(average, source, 0.9)
    torch.testing.assert_close(average.weight, 0.9 * start + 0.1 * source.weight.detach())


def test_a_negative_fraction_is_refused() -> None:
    with pytest.raises(InputError, match="ema_fraction must not be negative"):
        ema_decay(1, 1, fraction=-0.1)
