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
        # The original repositories' code with these settings, 272 channels at 32 x 32, no classes.
        (DiT, {}, 33.4, 6.26),
        (DiT, {"dim": 768, "num_heads": 12, "patch": 4}, 136, 5.98),
        (DiT, {"dim": 512, "num_heads": 8}, 58.9, 10.8),
        (UViT, {}, 26.4, 7.92),
        (UViT, {"dim": 320, "num_heads": 5}, 18.7, 5.83),
        (UViT, {"dim": 512, "num_heads": 8}, 46.0, 13.2),
    ],
)
def test_size_and_cost_are_those_of_the_original(
    network: type[DiT | UViT], arguments: dict[str, int], parameters_m: float, gmacs: float
) -> None:
    with torch.device("meta"):
        built = network(272, **arguments)
    # The originals store a table of positions; U-ViT's has a row for the timestep.
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
def test_presets_of_one_size_have_similar_costs(
    presets: tuple[type[Network], ...], shape: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        unet, *others = (count_macs(preset(shape[0]), shape) for preset in presets)
    # The base presets are the published U-ViT and DiT-S/2, which differ from the U-Net by 15 %.
    assert all(abs(macs / unet - 1) < 0.15 for macs in others)


@pytest.mark.parametrize("network", [DiT, UViT])
def test_the_encoder_is_the_first_half_of_the_blocks(network: type[DiT | UViT]) -> None:
    built = network(3, dim=16, depth=4, num_heads=2)
    encoding = built.encode(torch.zeros(2, 3, 8, 12), torch.tensor([1, 2]))
    assert encoding.shape == (2, 16, 4, 6)
    assert len(built.encoder) == 2


def test_patches_return_to_their_positions(generator: torch.Generator) -> None:
    patches = Patches(3, 12, 2)
    with torch.no_grad():  # each token becomes its own patch, flattened as (C, p, q)
        patches.embed.weight.copy_(torch.eye(12).view(12, 3, 2, 2))
        patches.embed.bias.zero_()
    x = torch.randn(2, 3, 4, 6, generator=generator)
    tokens = patches(x) - position_embedding(2, 3, 12, device=x.device)
    as_predicted = tokens.view(2, 6, 3, 4).transpose(2, 3).flatten(2)  # DiT's order: (p, q, C)
    torch.testing.assert_close(patches.to_features(as_predicted, x.shape[2:]), x)
    first, last = patches.to_map(patches(x), x.shape[2:])[:, :, [0, 1], [0, 2]].unbind(2)
    torch.testing.assert_close(first, patches(x)[:, 0])
    torch.testing.assert_close(last, patches(x)[:, 5])


def test_every_cell_has_its_own_position_embedding() -> None:
    embedded = position_embedding(3, 5, 8, device=torch.device("cpu"))
    assert embedded.shape == (15, 8)
    assert torch.cdist(embedded, embedded).add(torch.eye(15)).min() > 0.01


def test_a_new_dit_predicts_zero(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 8, 8, generator=generator)
    assert not DiT(5, dim=16, depth=2, num_heads=2)(x, T).any()


def test_the_decoder_of_a_uvit_reads_the_skip_connections(generator: torch.Generator) -> None:
    network = UViT(3, dim=16, depth=2, num_heads=2)
    x = torch.randn(1, 3, 4, 4, generator=generator)
    before = network(x, T)
    with torch.no_grad():
        network.decoder[0].skip.weight[:, 16:].zero_()  # type: ignore[union-attr, index]
    assert not torch.allclose(network(x, T), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch": 0}, "positive patch"),
        ({"dim": 10, "num_heads": 4}, "dim 10 with num_heads 4"),
        ({"dim": 6, "num_heads": 2}, "dim 6"),
        ({"depth": 3}, "depth .* got 3"),
    ],
)
def test_an_impossible_transformer_is_rejected(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DiT(4, **arguments)


def test_a_grid_that_is_not_a_multiple_of_the_patch_is_rejected() -> None:
    with pytest.raises(InputError, match=r"multiple of 2 .* 6 x 7.* patch"):
        DiT(4, dim=16, depth=2, num_heads=2)(torch.zeros(1, 4, 6, 7), T)
