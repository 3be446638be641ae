import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from omiad.errors import InputError
from omiad.memory import NormalMemory


@pytest.fixture
def normal(generator):
    """Features and residuals of twelve images."""
    x_0 = torch.randn(12, 3, 4, 4, generator=generator)
    residual = 0.2 * torch.randn(12, 3, 4, 4, generator=generator)
    return x_0, residual


def filled(normal, weight):
    memory = NormalMemory(3, residual_weight=weight)
    memory.fit(*(x.permute(0, 2, 3, 1).reshape(-1, 3) for x in normal))
    return memory


def points(x_0, residual, weight, scale):
    scaled = weight * residual / scale.view(1, -1, 1, 1)
    return torch.cat([x_0, scaled], dim=1).permute(0, 2, 3, 1).reshape(-1, 2 * x_0.shape[1])


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_distances_are_those_of_a_k_d_tree(normal, generator, weight):
    memory = filled(normal, weight)
    x_0, residual = normal
    scale = residual.square().mean((0, 2, 3)).sqrt()
    tree = cKDTree(points(x_0, residual, weight, scale).numpy())
    asked = torch.randn(2, 5, 3, 4, 4, generator=generator)
    expected = tree.query(points(*asked, weight, scale).numpy())[0]
    np.testing.assert_allclose(memory(*asked).flatten(), expected, rtol=1e-5)


def test_a_kept_patch_is_at_no_distance_however_long_it_is(normal):
    x_0, residual = normal
    memory = filled((1000 * x_0, residual), 0.7)
    assert memory(1000 * x_0, residual).max() == 0


def test_a_distance_does_not_depend_on_the_batch_or_on_blocks(normal, monkeypatch):
    x_0, residual = normal
    memory = filled((x_0 + 1, residual), 0.7)
    whole = memory(x_0, residual)
    monkeypatch.setattr("omiad.memory._MAX_DISTANCES", 700)
    assert torch.equal(memory(x_0, residual), whole)
    assert torch.equal(memory(x_0[3:4], residual[3:4]), whole[3:4])


def test_the_callers_autocast_does_not_change_a_distance(normal):
    x_0, residual = normal
    memory = filled((x_0 + 1, residual), 0.7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nearest = memory(x_0, residual)
    assert torch.equal(nearest, memory(x_0, residual))


def test_the_state_travels_also_into_an_empty_memory(normal):
    memory, other = filled(normal, 0.7), NormalMemory(3, residual_weight=0.7)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other(*normal), memory(*normal))


def test_a_state_from_before_there_was_a_memory_is_an_empty_one(normal):
    memory = filled(normal, 0.7)
    memory.load_state_dict({})
    assert memory.patches.shape == (0, 6)


def test_a_residual_without_variance_is_no_division_by_zero(normal):
    x_0, residual = normal
    memory = filled((x_0, 0 * residual), 0.7)
    assert torch.isfinite(memory(x_0, residual)).all()


def test_an_empty_memory_is_no_score(normal):
    with pytest.raises(InputError, match=r"memory of normal patches is empty\. .*calibrate"):
        NormalMemory(3, residual_weight=1.0)(*normal)
