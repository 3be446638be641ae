import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from omiad.memory import NormalMemory


@pytest.fixture
def normal(generator):
    """Features, residuals and categories of twelve images: two products."""
    x_0 = torch.randn(12, 3, 4, 4, generator=generator)
    residual = 0.2 * torch.randn(12, 3, 4, 4, generator=generator)
    return x_0, residual, torch.arange(12) % 2


def points(x_0, residual, weight, scale):
    scaled = weight * residual / scale.view(1, -1, 1, 1)
    return torch.cat([x_0, scaled], dim=1).permute(0, 2, 3, 1).reshape(-1, 2 * x_0.shape[1])


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_distances_are_those_of_a_k_d_tree(normal, generator, weight):
    memory = NormalMemory(3, size=1000, residual_weight=weight)
    memory.fit(*normal, seed=0)
    x_0, residual, _ = normal
    scale = residual.square().mean((0, 2, 3)).sqrt()
    tree = cKDTree(points(x_0, residual, weight, scale).numpy())
    asked = torch.randn(2, 5, 3, 4, 4, generator=generator)
    expected = tree.query(points(*asked, weight, scale).numpy())[0]
    np.testing.assert_allclose(memory(*asked).flatten(), expected, rtol=1e-5)


def test_a_kept_patch_is_at_no_distance_however_long_it_is(normal):
    x_0, residual, category = normal
    memory = NormalMemory(3, size=1000, residual_weight=0.7)
    memory.fit(1000 * x_0, residual, category, seed=0)
    assert memory(1000 * x_0, residual).max() == 0


def test_every_category_keeps_as_many_patches(normal):
    x_0, residual, _ = normal
    category = torch.tensor([0] * 10 + [1] * 2)
    memory = NormalMemory(3, size=20, residual_weight=0.7)
    memory.fit(x_0, residual, category, seed=0)
    of_second = x_0[10:].permute(0, 2, 3, 1).reshape(-1, 3)
    is_of_second = (memory.patches[:, None, :3] == of_second).all(2).any(1)
    assert (~is_of_second).sum() == is_of_second.sum() == 20


def test_a_distance_does_not_depend_on_the_batch_or_on_blocks(normal, monkeypatch):
    x_0, residual, category = normal
    memory = NormalMemory(3, size=50, residual_weight=0.7)
    memory.fit(x_0 + 1, residual, category, seed=0)
    whole = memory(x_0, residual)
    monkeypatch.setattr("omiad.memory._MAX_DISTANCES", 700)
    assert torch.equal(memory(x_0, residual), whole)
    assert torch.equal(memory(x_0[3:4], residual[3:4]), whole[3:4])


def test_the_callers_autocast_does_not_change_a_distance(normal):
    x_0, residual, category = normal
    memory = NormalMemory(3, size=50, residual_weight=0.7)
    memory.fit(x_0 + 1, residual, category, seed=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        nearest = memory(x_0, residual)
    assert torch.equal(nearest, memory(x_0, residual))


def test_the_state_travels_also_into_an_empty_memory(normal):
    memory = NormalMemory(3, size=20, residual_weight=0.7)
    memory.fit(*normal, seed=0)
    other = NormalMemory(3, size=20, residual_weight=0.7)
    assert other.is_empty
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other(*normal[:2]), memory(*normal[:2]))


def test_the_seed_decides_what_is_kept(normal):
    kept = []
    for seed in (0, 0, 1):
        memory = NormalMemory(3, size=20, residual_weight=0.7)
        memory.fit(*normal, seed=seed)
        kept.append(memory.patches)
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])
