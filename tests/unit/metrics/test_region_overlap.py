import numpy as np
import pytest
import torch
from references import slow_au_pro
from scipy import ndimage

from omiad.errors import InputError
from omiad.metrics import au_pro, region_weights


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_au_pro_equals_the_slow_definition(levels: int, limit: float) -> None:
    rng = np.random.default_rng(0)
    masks = ndimage.binary_dilation(rng.random((4, 12, 12)) > 0.96, iterations=1)
    masks[0] = False
    scores = np.round((rng.random(masks.shape) + 0.5 * masks) * levels) / levels
    ours = au_pro(torch.from_numpy(scores), torch.from_numpy(masks), fpr_limit=limit)
    assert ours == pytest.approx(slow_au_pro(scores, masks, limit), abs=1e-9)


def test_a_perfect_map_scores_one_and_small_regions_count_like_large_ones() -> None:
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :4, :4] = True
    masks[0, 7, 7] = True
    assert au_pro(masks.float(), masks) == pytest.approx(1.0)
    # Ties: the large region at once, the single pixel with all 47 normal pixels. Up to FPR 0.3 the
    # overlap runs from 0.5 along the tie's line towards 1: 0.5 + 0.5 * 0.3 / 2.
    missed = masks.float()
    missed[0, 7, 7] = 0
    assert au_pro(missed, masks) == pytest.approx(0.575)


def test_diagonal_pixels_are_one_region() -> None:
    masks = torch.eye(4, dtype=torch.bool)[None]
    torch.testing.assert_close(region_weights(masks)[0].diagonal(), torch.full((4,), 0.25))


def test_weights_of_each_region_sum_to_one() -> None:
    masks = torch.zeros(2, 6, 6, dtype=torch.bool)
    masks[0, :2, :3] = masks[0, 5, 5] = masks[1, 3:, :2] = True
    weights = region_weights(masks)
    assert weights.sum().item() == pytest.approx(3)
    assert not weights[~masks].any()


def test_masks_of_another_rank_are_refused() -> None:
    with pytest.raises(InputError, match=r"masks must be \(N, H, W\)"):
        region_weights(torch.zeros(4, 4, dtype=torch.bool))


def test_masks_of_other_images_are_refused() -> None:
    masks = torch.eye(4, dtype=torch.bool)[None]
    with pytest.raises(InputError, match=r"got \(1, 4, 4\) for \(2, 4, 4\)"):
        au_pro(torch.zeros(2, 4, 4), masks)
