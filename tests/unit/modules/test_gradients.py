import pytest
import torch
from torch import nn

from omiad.modules.gradients import frozen, zero_nonfinite_gradients


def test_flags_come_back_even_after_an_error() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    inside: list[bool] = []

    def fail() -> None:
        with frozen(module):
            inside.extend(p.requires_grad for p in module.parameters())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert inside == [False] * 4
    assert [p.requires_grad for p in module.parameters()] == [False, False, True, True]


def test_gradients_that_are_no_numbers_are_counted_and_replaced() -> None:
    module = nn.Linear(2, 1)
    module(torch.ones(1, 2)).sum().backward()
    assert zero_nonfinite_gradients(module) == 0
    module.weight.grad = torch.tensor([[float("nan"), float("inf")]])
    assert zero_nonfinite_gradients(module) == 1
    assert module.weight.grad.tolist() == [[0.0, 1e5]]
