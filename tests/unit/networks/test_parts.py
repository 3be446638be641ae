"""The parts of the networks, the decoder of features, and what they reject."""

import math
from collections.abc import Callable

import pytest
import torch

from omiad.errors import InputError
from omiad.networks import DiT, FeatureDecoder, Network, UNet, UViT, unet_tiny
from omiad.networks.layers import ResBlock, timestep_embedding
from omiad.networks.registry import build_network, network_spec, trust
from omiad.networks.transformer import Patches, position_embedding

T = torch.tensor([1])


def test_step_1_has_the_embedding_of_step_0_in_guided_diffusion() -> None:
    # Cosines, then sines, of the frequencies 1 and 1e-4^(1/2).
    embedding = timestep_embedding(torch.tensor([1, 2]), 4)
    expected = [[1, 1, 0, 0], [math.cos(1), math.cos(0.01), math.sin(1), math.sin(0.01)]]
    torch.testing.assert_close(embedding, torch.tensor(expected))


def test_every_cell_has_its_own_position_embedding() -> None:
    embedded = position_embedding(3, 5, 8, device=torch.device("cpu"))
    assert embedded.shape == (15, 8)
    assert torch.cdist(embedded, embedded).add(torch.eye(15)).min() > 0.01


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


def test_the_timestep_scales_and_shifts_the_normalised_features(generator: torch.Generator) -> None:
    # Scale -1 and shift 0 cancel the branch: norm * (1 + scale) + shift = 0.
    block = ResBlock(4, 4, embedding_dim=2)
    x, embedding = torch.randn(1, 4, 3, 3, generator=generator), torch.zeros(1, 2)
    with torch.no_grad():
        block.conv_out.weight.fill_(0.1)
        assert not torch.allclose(block(x, embedding), x)
        block.embedding.bias.copy_(torch.tensor([-1.0] * 4 + [0.0] * 4))
        assert torch.equal(block(x, embedding), x)


@pytest.mark.parametrize("network", [DiT, UViT])
def test_the_encoder_is_the_first_half_of_the_blocks(network: type[DiT | UViT]) -> None:
    built = network(3, dim=16, depth=4, num_heads=2)
    levels = built.encode_levels(torch.zeros(1, 3, 8, 12), T)
    assert [level.shape for level in levels] == 2 * [(1, 16, 4, 6)]


def test_the_encoder_of_a_unet_has_a_level_for_each_grid() -> None:
    levels = UNet(3, width=8, multipliers=(1, 3)).encode_levels(torch.zeros(1, 3, 8, 12), T)
    assert [level.shape for level in levels] == [(1, 8, 8, 12), (1, 24, 4, 6)]


@pytest.mark.parametrize("network", [unet_tiny(5), DiT(5, dim=16, depth=2, num_heads=2)])
def test_a_new_unet_or_dit_predicts_zero(network: Network, generator: torch.Generator) -> None:
    assert not network(torch.randn(1, 5, 8, 8, generator=generator), T).any()


def test_the_decoder_of_a_uvit_reads_the_skip_connections(generator: torch.Generator) -> None:
    network = UViT(3, dim=16, depth=2, num_heads=2)
    x = torch.randn(1, 3, 4, 4, generator=generator)
    before = network(x, T)
    with torch.no_grad():
        network.decoder[0].skip.weight[:, 16:].zero_()  # type: ignore[union-attr, index]
    assert not torch.allclose(network(x, T), before)


@pytest.mark.parametrize(("grid", "image"), [(16, 224), (32, 224), (8, 32), (5, 23), (8, 8)])
def test_a_picture_has_the_size_of_the_image_and_lies_in_0_to_1(
    grid: int, image: int, generator: torch.Generator
) -> None:
    decoder = FeatureDecoder(6, feature_size=grid, image_size=image, width=32)
    picture = decoder(100 * torch.randn(2, 6, grid, grid, generator=generator))
    assert picture.shape == (2, 3, image, image)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_gradients_reach_every_parameter_of_a_decoder(generator: torch.Generator) -> None:
    decoder = FeatureDecoder(6, feature_size=4, image_size=16, width=32)
    decoder(torch.randn(2, 6, 4, 4, generator=generator)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (UNet, {"width": 0}, "width 0"),
        (UNet, {"multipliers": ()}, r"multipliers \[\]"),
        (UNet, {"width": 5, "num_heads": 1}, "even width.* width 5"),
        (UNet, {"width": 6, "num_heads": 4}, "num_heads divides.* num_heads 4"),
        (DiT, {"patch": 0}, "patch 0"),
        (DiT, {"dim": 10, "num_heads": 4}, "multiple of num_heads.* dim 10"),
        (DiT, {"dim": 6, "num_heads": 2}, "of 4.* dim 6"),
        (DiT, {"depth": 3}, "even depth.* depth 3"),
        (FeatureDecoder, {"feature_size": 0, "image_size": 32}, "feature_size 0"),
        (FeatureDecoder, {"feature_size": 8, "image_size": 7}, "feature_size 8, image_size 7"),
    ],
)
def test_an_impossible_network_is_rejected(
    network: Callable[..., object], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        network(4, **arguments)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (UNet(4, width=8, multipliers=(1, 2, 2), num_blocks=1), "of 4 .* 6 x 7.* multipliers"),
        (DiT(4, dim=16, depth=2, num_heads=2), "of 2 .* 6 x 7.* patch"),
    ],
)
def test_a_grid_that_does_not_divide_is_rejected(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(torch.zeros(1, 4, 6, 7), T)


def test_the_spec_of_a_network_is_its_public_class_and_plain_arguments() -> None:
    sizes = {"channels": 4, "width": 8, "num_blocks": 1, "num_heads": 4}
    network = UNet(**sizes, multipliers=(1, 2), attention_factors=(2,))
    arguments = {**sizes, "multipliers": [1, 2], "attention_factors": [2]}
    assert network_spec(network) == {"class_path": "omiad.networks.UNet", "init_args": arguments}
    assert type(build_network(network_spec(network))) is UNet


@pytest.mark.parametrize(
    "class_path", ["omiad.networks.NoNet", "no_package.Net", "Net", "torch.nn.Linear"]
)
def test_a_class_path_that_is_not_a_network_is_rejected(class_path: str) -> None:
    with pytest.raises(InputError, match=f"'{class_path}'.*--trust"):
        build_network({"class_path": class_path, "init_args": {}})
    with pytest.raises(InputError, match=f"'{class_path}'"):
        trust(class_path)
