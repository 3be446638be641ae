import pytest
import torch

from omiad.errors import InputError
from omiad.features import FeatureExtractor
from omiad.features.folding import Folding

OPTIONS = {"weights": "random", "image_size": 64, "grid": "patchcore", "stages": [2, 3]}
BACKBONE = "test_efficientnet.r160_in1k"


def test_what_is_folded_unfolds_to_the_same_values(generator):
    folding = Folding(3, [2, 4], [True, False])
    fine, coarse = (torch.randn(2, c, s, s, generator=generator) for c, s in ((2, 12), (4, 4)))
    folded = torch.cat([folding.folded(fine, 0), folding.folded(coarse, 1)], 1)
    assert folded.shape == (2, sum(folding.channels_per_stage), 4, 4)
    unfolded = folding.unfolded(folded)
    assert torch.equal(unfolded[0], fine)
    enlarged = torch.nn.functional.interpolate(coarse, (12, 12), mode="bilinear")
    torch.testing.assert_close(unfolded[1], enlarged)


def test_an_extractor_keeps_a_fine_stage_whole_and_a_coarse_stage_as_it_is(generator):
    images = torch.randint(256, (2, 3, 64, 64), generator=generator, dtype=torch.uint8)
    folded = FeatureExtractor(BACKBONE, **OPTIONS, feature_size=4, fold=2)
    fine, coarse = (FeatureExtractor(BACKBONE, **OPTIONS, feature_size=s)(images) for s in (8, 4))
    parts = folded.folding.unfolded(folded(images))
    few = parts[0].shape[1]
    assert folded.folding.is_folded == [True, False]
    torch.testing.assert_close(parts[0], fine[:, :few])
    torch.testing.assert_close(folded(images)[:, 4 * few :], coarse[:, few:])


def test_a_fold_of_1_leaves_the_configuration_as_it_was():
    assert "fold" not in FeatureExtractor(BACKBONE, **OPTIONS, feature_size=4).config


def test_a_fold_without_cells_is_refused():
    with pytest.raises(InputError, match="fold must lie in 1"):
        FeatureExtractor(BACKBONE, **OPTIONS, feature_size=4, fold=0)
