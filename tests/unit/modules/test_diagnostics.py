import pytest
import torch
from torch import nn

from omiad.errors import InputError
from omiad.modules.diagnostics import (
    DistillationDiagnostics,
    TimestepBands,
    gradient_norm,
    parameter_distance,
)


def test_each_step_falls_into_its_band() -> None:
    bands = TimestepBands(990)
    assert bands.names == ["t1_248", "t249_495", "t496_742", "t743_990"]
    bands.update(torch.tensor([1, 248, 249, 990]), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    assert bands.means() == {"t1_248": 2.0, "t249_495": 5.0, "t743_990": 7.0}


def test_means_gather_batches_and_begin_anew() -> None:
    bands = TimestepBands(10, num_bands=2)
    bands.update(torch.tensor([1]), torch.tensor([1.0]))
    bands.update(torch.tensor([5, 6]), torch.tensor([3.0, 8.0], requires_grad=True))
    assert bands.means() == {"t1_5": 2.0, "t6_10": 8.0}
    assert bands.means() == {}


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


def test_diagnostics_go_on_where_a_run_was_interrupted() -> None:
    state = {"student_error": (990, torch.ones(2, 4))}
    diagnostics = DistillationDiagnostics()
    diagnostics.load_state_dict(state)
    assert diagnostics.state_dict() == state


@pytest.mark.parametrize(
    "state",
    [
        [],
        {"a": (990,)},
        {"a": [990, torch.ones(2, 4)]},
        {"a": ("990", torch.ones(2, 4))},
        {"a": (0, torch.ones(2, 4))},
        {"a": (2**63, torch.ones(2, 4))},
        {"a": (990, torch.ones(4, 2))},
        {"a": (990, torch.full((2, 4), torch.nan))},
        {"a": (990, torch.ones(2, 4, dtype=torch.complex64))},
    ],
)
def test_diagnostics_refuse_another_state(state: object) -> None:
    with pytest.raises(InputError, match=r"callbacks\.DistillationDiagnostics"):
        DistillationDiagnostics().load_state_dict(state)  # type: ignore[arg-type]
