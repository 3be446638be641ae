import numpy as np

from omiad.metrics.regions import weigh_regions


def test_the_weights_of_each_region_sum_to_one_and_diagonal_pixels_are_one_region() -> None:
    masks = np.zeros((4, 6, 6), bool)
    masks[0, :2, :3] = masks[0, 5, 5] = masks[3, 3:, :2] = True
    masks[2] = np.eye(6, dtype=bool)
    pixels, weights = weigh_regions(masks)
    np.testing.assert_array_equal(pixels, np.flatnonzero(masks))
    dense = np.zeros(masks.shape)
    dense.ravel()[pixels] = weights
    np.testing.assert_allclose(dense[0, :2, :3], 1 / 6)
    assert dense[0, 5, 5] == 1
    np.testing.assert_allclose(dense[2].diagonal(), 1 / 6)
    np.testing.assert_allclose(dense.sum((1, 2)), [2, 0, 1, 1], rtol=1e-6)


def test_no_mask_has_no_weights() -> None:
    assert [len(part) for part in weigh_regions(np.empty((0, 4, 4), bool))] == [0, 0]
