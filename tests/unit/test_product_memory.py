import numpy as np
import pytest
import torch
from references import patches
from scipy.spatial.distance import cdist

from omiad.errors import InputError
from omiad.features.folding import Folding
from omiad.memory import cells
from omiad.product_memory import RIDGE, ProductMemory

CHANNELS = [2, 3]
FOLDING = Folding(2, CHANNELS, [True, False])
SIDE = 4


@pytest.fixture
def normal(generator):
    """Features and residuals of six images of a nut and six of a bolt."""
    x_0 = torch.randn(2, 6, 11, SIDE, SIDE, generator=generator) + 3 * torch.arange(2).view(
        2, 1, 1, 1, 1
    )
    residual = 0.2 * torch.randn(2, 6, 11, SIDE, SIDE, generator=generator)
    return x_0, residual


def filled(normal, weight=0.5, size=200, whitening=0.5):
    memory = ProductMemory(FOLDING, size=size, residual_weight=weight, residual_whitening=whitening)
    for name, x_0, residual in zip(("nut", "bolt"), *normal, strict=True):
        memory.add(name, x_0, residual, seed=0)
    memory.recognise_by([x.mean((2, 3)) for x in normal[0]])
    return memory


def fine(x):
    """Softened patches (cells, D) of images on the fine grid, in float64."""
    stages = [cells(stage).double().numpy() for stage in FOLDING.unfolded(x)]
    joined = np.concatenate(stages, axis=1)
    return patches(joined, 0 * joined, np.ones(5), CHANNELS, 0)[:, :5]


def roots(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    ridge = RIDGE * values.mean()
    return vectors @ np.diag((values + ridge) ** power) @ vectors.T


def test_the_distance_of_features_is_that_to_the_nearest_patch_half_whitened(normal, generator):
    known, asked = fine(normal[0][0]), torch.randn(2, 11, SIDE, SIDE, generator=generator)
    divided = roots(np.cov(known.T, bias=True), -0.25)
    expected = cdist(fine(asked) @ divided, known @ divided).min(1)
    memory = filled(normal, weight=0.0, size=len(known))
    distances = memory(asked, torch.zeros_like(asked), torch.zeros(2, dtype=torch.int64))
    assert distances.shape == (2, 1, 2 * SIDE, 2 * SIDE)
    np.testing.assert_allclose(distances.flatten(), expected, rtol=1e-3, atol=1e-3)


def test_directions_beyond_the_first_are_compared_with_the_mean(normal, generator, monkeypatch):
    monkeypatch.setattr("omiad.product_memory.NUM_DIRECTIONS", 2)
    known, asked = fine(normal[0][0]), torch.randn(1, 11, SIDE, SIDE, generator=generator)
    values, vectors = np.linalg.eigh(np.cov(known.T, bias=True))
    divided = vectors[:, ::-1] / (values[::-1] + RIDGE * values.mean()) ** 0.25
    turned, own = ((x - known.mean(0)) @ divided for x in (fine(asked), known))
    square = cdist(turned[:, :2], own[:, :2]).min(1) ** 2 + (turned[:, 2:] ** 2).sum(1)
    memory = filled(normal, weight=0.0, size=len(known))
    distances = memory(asked, torch.zeros_like(asked), torch.zeros(1, dtype=torch.int64))
    np.testing.assert_allclose(distances.flatten(), np.sqrt(square), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_the_distance_of_the_residual_is_that_from_zero(normal, generator, whitening):
    known = fine(normal[1][1])
    asked = torch.randn(2, 11, SIDE, SIDE, generator=generator)
    divided = fine(asked) @ roots(known.T @ known / len(known), -whitening / 2)
    memory = filled(normal, size=0, whitening=whitening)
    distances = memory(torch.zeros_like(asked), asked, torch.ones(2, dtype=torch.int64))
    np.testing.assert_allclose(distances.flatten(), np.sqrt((divided**2).mean(1)), rtol=1e-4)


@pytest.mark.parametrize("weight", [0.25, 0.5])
def test_both_distances_are_multiplied_in_powers_that_sum_to_1(normal, weight):
    rows = torch.zeros(6, dtype=torch.int64)
    images = normal[0][1], normal[1][1]
    of_features, of_residual = (filled(normal, each)(*images, rows) for each in (0.0, 1.0))
    both = filled(normal, weight)(*images, rows)
    torch.testing.assert_close(both, of_features ** (1 - weight) * of_residual**weight)


def test_a_product_that_nobody_names_is_recognised(normal):
    x_0, unknown = normal[0].flatten(0, 1), torch.full((12,), -1)
    assert filled(normal).rows(x_0, unknown, []).tolist() == 6 * [0] + 6 * [1]


def test_a_product_that_is_named_is_believed(normal):
    shown = torch.tensor([0, 1, -1])
    rows = filled(normal).rows(normal[0][0][:3], shown, ["bolt", "nut"])
    assert rows.tolist() == [1, 0, 0]


def test_another_product_changes_no_distance(normal):
    memory, images = filled(normal), (normal[0][0], normal[1][0])
    rows = torch.zeros(6, dtype=torch.int64)
    before = memory(*images, rows)
    memory.add("washer", normal[0][0] - 5, normal[1][0], seed=0)
    assert torch.equal(memory(*images, rows), before)
    assert memory.rows(normal[0][0] - 5, torch.full((6,), -1), []).tolist() == 6 * [0]
    assert memory.rows(
        normal[0][0], torch.zeros(6, dtype=torch.int64), ["washer"]
    ).tolist() == 6 * [2]


def test_a_distance_does_not_depend_on_autocast(normal):
    memory, images = filled(normal), (normal[0][0], normal[1][0])
    rows = torch.zeros(6, dtype=torch.int64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = memory(*images, rows)
    assert torch.equal(cast, memory(*images, rows))


def test_a_single_photograph_without_variety_is_no_division_by_zero(normal):
    memory = ProductMemory(FOLDING, size=50, residual_weight=0.5, residual_whitening=0.5)
    memory.add("nut", torch.ones(1, 11, SIDE, SIDE), torch.zeros(1, 11, SIDE, SIDE), seed=0)
    distances = memory(normal[0][0], normal[1][0], torch.zeros(6, dtype=torch.int64))
    assert distances.isfinite().all()


def test_the_state_travels_also_into_an_empty_memory(normal):
    memory, other = (
        filled(normal),
        ProductMemory(FOLDING, size=200, residual_weight=0.5, residual_whitening=0.5),
    )
    other.load_state_dict(memory.state_dict())
    other.names = memory.names
    images, rows = (normal[0][0], normal[1][0]), torch.ones(6, dtype=torch.int64)
    assert torch.equal(other(*images, rows), memory(*images, rows))


def test_an_empty_memory_is_no_score(normal):
    memory = ProductMemory(FOLDING, size=10, residual_weight=0.5, residual_whitening=0.5)
    with pytest.raises(InputError, match=r"memory of normal patches is empty\. .*calibrate"):
        memory(normal[0][0], normal[1][0], torch.zeros(6, dtype=torch.int64))


def test_names_without_patches_are_refused(normal):
    memory = filled(normal)
    memory.check("'model.ckpt'")
    memory.names = ["nut", "nut"]
    with pytest.raises(InputError, match=r"'model\.ckpt' names 2 products .* patches of 2"):
        memory.check("'model.ckpt'")
