import pytest
import torch

from omiad.errors import InputError
from omiad.features import FeatureNormalizer
from omiad.features.normalization import measure


@pytest.fixture
def features(generator):
    scale = torch.tensor([1.0, 5.0, 0.1]).view(1, 3, 1, 1)
    return torch.randn(50, 3, 4, 4, generator=generator) * scale + 2 * scale


def fitted(kind, features) -> FeatureNormalizer:
    normalizer = FeatureNormalizer(3, kind)
    assert torch.equal(normalizer(features), features)  # nothing changes before `fit`
    normalizer.fit(measure([features]))
    return normalizer


def test_a_constant_channel_gets_the_least_standard_deviation(features):
    features[:, 1] = 3
    mean, std, rms = measure(features.split(20))
    torch.testing.assert_close(mean, features.double().mean((0, 2, 3)))
    assert std[1] == 1e-3 * rms
    assert measure([torch.zeros(2, 3, 4, 4)]).std.min() > 0


def test_none_changes_nothing(features):
    assert torch.equal(fitted("none", features)(features), features)


def test_scalar_makes_the_root_mean_square_one_and_keeps_ratios(features):
    x = fitted("scalar", features)(features)
    assert x.square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(x * features.square().mean().sqrt(), features)


def test_channel_standardises_every_channel(features):
    x = fitted("channel", features)(features)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3))


@pytest.mark.parametrize("kind", ["none", "scalar", "channel"])
def test_the_rms_is_that_of_the_normalised_features_in_float32(features, kind):
    normalizer = FeatureNormalizer(3, kind)
    normalizer.load_state_dict(fitted(kind, features).state_dict())  # statistics travel with it
    assert normalizer(features.half()).dtype == torch.float32
    measured = normalizer(features).square().mean().sqrt().item()
    assert normalizer.normalized_rms(measure([features])) == pytest.approx(measured, rel=1e-4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="none, scalar, channel, but got 'whiten'"):
        FeatureNormalizer(3, "whiten")
