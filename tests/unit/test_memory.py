import numpy as np
import pytest
import torch
from references import patches
from scipy.spatial import cKDTree

from omiad.errors import InputError
from omiad.memory import NormalMemory, cells, coreset

STAGES = [1, 2]


@pytest.fixture
def normal(generator):
    """Features and residuals of twelve images."""
    x_0 = torch.randn(12, 3, 4, 4, generator=generator)
    residual = 0.2 * torch.randn(12, 3, 4, 4, generator=generator)
    return x_0, residual


def filled(normal, weight):
    memory = NormalMemory(STAGES, residual_weight=weight)
    x_0, residual = (cells(x) for x in normal)
    memory.fit(x_0, residual, residual.square().mean(0).sqrt())
    return memory


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_distances_are_those_of_a_k_d_tree(normal, generator, weight):
    rms = normal[1].square().mean((0, 2, 3)).sqrt()

    def compared(*maps):
        arrays = [x.double().numpy() for x in (*map(cells, maps), rms)]
        return patches(*arrays, STAGES, weight)

    asked = torch.randn(2, 5, 3, 4, 4, generator=generator)
    expected = cKDTree(compared(*normal)).query(compared(*asked))[0]
    distances = filled(normal, weight)(*asked).flatten()
    np.testing.assert_allclose(distances, expected, rtol=1e-4)


def test_a_kept_patch_is_at_no_distance_however_long_it_is(normal):
    x_0, residual = normal
    memory = filled((1000 * x_0, residual), 0.7)
    assert memory(1000 * x_0, residual).max() == 0


def test_a_distance_depends_on_neither_batch_nor_blocks_nor_autocast(normal, monkeypatch):
    x_0, residual = normal
    memory = filled((x_0 + 1, residual), 0.7)
    whole = memory(x_0, residual)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(memory(x_0, residual), whole)
    monkeypatch.setattr("omiad.memory._MAX_DISTANCES", 700)
    assert torch.equal(memory(x_0, residual), whole)
    assert torch.equal(memory(x_0[3:4], residual[3:4]), whole[3:4])


def test_the_state_travels_also_into_an_empty_memory(normal):
    memory, other = filled(normal, 0.7), NormalMemory(STAGES, residual_weight=0.7)
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other(*normal), memory(*normal))


def test_a_residual_without_variance_is_no_division_by_zero(normal):
    x_0, residual = normal
    memory = filled((x_0, 0 * residual), 0.7)
    assert torch.isfinite(memory(x_0, residual)).all()


def test_an_empty_memory_is_no_score(normal):
    with pytest.raises(InputError, match=r"memory of normal patches is empty\. .*calibrate"):
        NormalMemory(STAGES, residual_weight=1.0)(*normal)


def test_a_coreset_leaves_no_patch_farther_than_twice_the_best(generator):
    # Clusters of radius 1, 100 apart: with one choice in each, the best radius is at most 1.
    centres = 100 * torch.eye(8, 16)
    spread = torch.randn(8, 50, 16, generator=generator)
    spread /= torch.linalg.vector_norm(spread, dim=2, keepdim=True)
    points = (centres[:, None] + spread).flatten(0, 1)
    chosen = coreset(points, 8, generator)
    assert sorted((chosen // 50).tolist()) == list(range(8))  # one of each cluster
    assert cKDTree(points[chosen]).query(points)[0].max() <= 2


def test_a_coreset_chooses_no_patch_twice_and_at_most_all(generator):
    points = torch.randn(300, 4, generator=generator)
    points[::2] = points[0]  # equal ones as well
    assert len(set(coreset(points, 200, generator).tolist())) == 200
    assert torch.equal(coreset(points, 400, generator), torch.arange(300))


def test_a_coreset_is_that_of_its_seed(generator):
    points = torch.randn(500, 40, generator=generator)
    first, again = (coreset(points, 50, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(coreset(points, 50, torch.Generator().manual_seed(3)), first)
