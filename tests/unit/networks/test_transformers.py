import pytest
import torch

from omiad.errors import InputError
from omiad.networks import (
    DiT,
    Network,
    UViT,
    count_macs,
    count_parameters,
    dit_base,
    dit_medium,
    dit_small,
    unet_base,
    unet_medium,
    unet_small,
    uvit_base,
    uvit_medium,
    uvit_small,
)
from omiad.networks.transformer import Patches, position_embedding

T = torch.tensor([1])


@pytest.mark.parametrize(
    ("network", "arguments", "parameters_m", "gmacs"),
    [
        # The repositories' own code with these settings, 272 channels at 32 x 32, no classes.
        (DiT, {}, 33.4, 6.26),
        (DiT, {"dim": 768, "num_heads": 12, "patch": 4}, 136, 5.98),
        (DiT, {"dim": 512, "num_heads": 8}, 58.9, 10.8),
        (UViT, {}, 26.4, 7.92),
        (UViT, {"dim": 320, "num_heads": 5}, 18.7, 5.83),
        (UViT, {"dim": 512, "num_heads": 8}, 46.0, 13.2),
    ],
)
def test_size_and_cost_are_those_of_the_source(
    network: type[DiT | UViT], arguments: dict[str, int], parameters_m: float, gmacs: float
) -> None:
    with torch.device("meta"):
        built = network(272, **arguments)
    # The source counts a table of positions, DiT's frozen and U-ViT's with one for the timestep.
    side = 32 // built.config["patch"]
    positions = (side**2 + (network is UViT)) * built.config["dim"]
    digits = 0.51 if parameters_m > 100 else 0.051
    assert (count_parameters(built) + positions) / 1e6 == pytest.approx(parameters_m, abs=digits)
    assert count_macs(built, (272, 32, 32)) / 1e9 == pytest.approx(gmacs, abs=0.051)


@pytest.mark.parametrize(
    ("presets", "shape"),
    [
        ((unet_small, dit_small, uvit_small), (152, 16, 16)),
        ((unet_medium, dit_medium, uvit_medium), (168, 16, 16)),
        pytest.param((unet_base, dit_base, uvit_base), (272, 32, 32), marks=pytest.mark.slow),
    ],
)
def test_presets_of_one_size_cost_alike(
    presets: tuple[type[Network], ...], shape: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        unet, *others = (count_macs(preset(shape[0]), shape) for preset in presets)
    # 15 % at most: the published U-ViT and DiT are taken for the base, as they are.
    assert all(abs(macs / unet - 1) < 0.15 for macs in others)


def test_the_encoder_of_either_is_its_first_half_on_the_patches_grid() -> None:
    x = torch.zeros(2, 3, 8, 12)
    for network in (DiT, UViT):
        built = network(3, dim=16, depth=4, num_heads=2)
        assert built.encode(x, torch.tensor([1, 2])).shape == (2, 16, 4, 6)
        assert len(built.encoder) == 2


def test_patches_are_laid_back_where_they_were_cut(generator: torch.Generator) -> None:
    patches = Patches(3, 12, 2)
    with torch.no_grad():  # each token is its patch as it is, (C, p, q) in a row
        patches.embed.weight.copy_(torch.eye(12).view(12, 3, 2, 2))
        patches.embed.bias.zero_()
    x = torch.randn(2, 3, 4, 6, generator=generator)
    tokens = patches(x) - position_embedding(2, 3, 12, device=x.device)
    as_predicted = tokens.view(2, 6, 3, 4).transpose(2, 3).flatten(2)  # DiT's order: (p, q, C)
    torch.testing.assert_close(patches.to_features(as_predicted, 4), x)


def test_every_place_of_a_grid_is_embedded_otherwise() -> None:
    embedded = position_embedding(3, 5, 8, device=torch.device("cpu"))
    assert embedded.shape == (15, 8)
    assert torch.cdist(embedded, embedded).add(torch.eye(15)).min() > 0.01


def test_a_new_dit_predicts_zero(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 8, 8, generator=generator)
    assert not DiT(5, dim=16, depth=2, num_heads=2)(x, T).any()


def test_the_way_out_of_a_uvit_sees_the_way_in(generator: torch.Generator) -> None:
    network = UViT(3, dim=16, depth=2, num_heads=2)
    x = torch.randn(1, 3, 4, 4, generator=generator)
    before = network(x, T)
    with torch.no_grad():
        network.decoder[0].skip.weight[:, 16:].zero_()  # type: ignore[union-attr, index]
    assert not torch.allclose(network(x, T), before)


@pytest.mark.parametrize("network", [DiT, UViT])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 0}, "needs a positive patch"),
        ({"dim": 10, "num_heads": 4}, "dim must be a multiple of num_heads"),
        ({"dim": 6, "num_heads": 2}, "sines, of 4, but got dim 6"),
        ({"depth": 3}, "depth must be even, .* but got 3"),
    ],
)
def test_an_impossible_transformer_is_refused(
    network: type[Network], arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        network(4, **arguments)


@pytest.mark.parametrize("network", [DiT, UViT])
def test_a_grid_that_cannot_be_cut_is_refused(network: type[Network]) -> None:
    built = network(4, dim=16, depth=2, num_heads=2)
    with pytest.raises(InputError, match="must be a multiple of 2, but got 6 x 7"):
        built(torch.zeros(1, 4, 6, 7), T)
