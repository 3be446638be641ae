import pytest
import torch

from omiad.errors import InputError
from omiad.features import FeatureNormalizer, FeatureStatistics


@pytest.fixture
def features(generator):
    scale = torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1)
    return torch.randn(50, 3, 4, 4, generator=generator) * scale + 2 * scale


@pytest.fixture
def statistics(features):
    x = features.double()
    return FeatureStatistics(
        mean=x.mean((0, 2, 3)),
        std=x.std((0, 2, 3), correction=0),
        rms=float(x.square().mean().sqrt()),
    )


def test_nothing_changes_before_fit_nor_ever_with_none(features, statistics):
    for kind in ("none", "scalar", "channel"):
        assert torch.equal(FeatureNormalizer(3, kind)(features), features)
    normalizer = FeatureNormalizer(3, "none")
    normalizer.fit(statistics)
    assert torch.equal(normalizer(features), features)


def test_scalar_makes_the_root_mean_square_one_and_keeps_ratios(features, statistics):
    normalizer = FeatureNormalizer(3, "scalar")
    normalizer.fit(statistics)
    x = normalizer(features)
    assert x.square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(x * statistics.rms, features)


def test_channel_standardises_every_channel(features, statistics):
    normalizer = FeatureNormalizer(3, "channel")
    normalizer.fit(statistics)
    x = normalizer(features)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3))


@pytest.mark.parametrize("kind", ["none", "scalar", "channel"])
def test_the_rms_is_that_of_the_normalised_features_in_float32(features, statistics, kind):
    normalizer = FeatureNormalizer(3, kind)
    normalizer.fit(statistics)
    x = normalizer(features.half())
    assert x.dtype == torch.float32
    measured = normalizer(features).square().mean().sqrt().item()
    assert normalizer.normalized_rms(statistics) == pytest.approx(measured, rel=1e-4)


def test_statistics_travel_with_the_state_dict(features, statistics):
    normalizer, copied = FeatureNormalizer(3, "channel"), FeatureNormalizer(3, "channel")
    normalizer.fit(statistics)
    copied.load_state_dict(normalizer.state_dict())
    assert torch.equal(copied(features), normalizer(features))


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="must be one of none, scalar, channel, but got 'whiten'"):
        FeatureNormalizer(3, "whiten")
