import pytest
import torch
from torch import nn

from omiad.modules.gradients import (
    frozen,
    gradient_norm,
    parameter_distance,
    zero_nonfinite_gradients,
)


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


def test_a_gradient_norm_leaves_graph_and_gradients_alone() -> None:
    x, y = (torch.tensor(v, requires_grad=True) for v in ([3.0], [4.0]))
    loss = (x**2 / 2 + y**2 / 2).sum()
    assert gradient_norm(loss, [x, y]).item() == 5.0
    assert x.grad is None
    loss.backward()
    assert x.grad is not None
    assert x.grad.item() == 3.0


def test_parameter_distance_is_relative() -> None:
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for p, value in zip([*a.parameters(), *b.parameters()], (6.0, 4.0, 3.0, 4.0), strict=True):
            p.fill_(value)
    assert parameter_distance(a, b) == pytest.approx(3 / 5)
