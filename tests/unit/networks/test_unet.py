import math

import pytest
import torch

from omiad.errors import InputError
from omiad.networks import (
    UNet,
    build_network,
    count_macs,
    count_parameters,
    network_spec,
    unet_base,
    unet_medium,
    unet_small,
    unet_tiny,
)
from omiad.networks.layers import ResBlock, timestep_embedding


@pytest.mark.parametrize(
    ("arguments", "parameters_m", "encoder_m", "gmacs", "encoding"),
    [
        # guided-diffusion's code with these settings, 272 channels at 32 x 32.
        ({}, 40.2, 12.0, 6.95, (256, 4, 4)),
        ({"attention_factors": (2,)}, 38.9, 11.4, 6.86, (256, 4, 4)),
        ({"num_blocks": 3}, 53.2, 17.2, 9.02, (256, 4, 4)),
        ({"multipliers": (1, 2, 3, 4)}, 88.7, 23.4, 8.58, (512, 4, 4)),
        ({"multipliers": (2, 2, 2), "attention_factors": (2,)}, 36.6, 11.0, 13.74, (256, 8, 8)),
        ({"width": 64, "multipliers": (1, 2, 2), "num_blocks": 1}, 5.3, 1.2, 1.41, (128, 8, 8)),
    ],
)
def test_size_and_cost_are_those_of_guided_diffusion(
    arguments: dict[str, object],
    parameters_m: float,
    encoder_m: float,
    gmacs: float,
    encoding: tuple[int, int, int],
) -> None:
    with torch.device("meta"):
        network = UNet(272, **arguments)  # type: ignore[arg-type]
        encoded = network.encode(torch.empty(2, 272, 32, 32), torch.tensor([1, 2]))
    encoder = sum(p.numel() for p in network.encoder_parameters())
    # Tolerances are half of the last digit.
    assert count_parameters(network) / 1e6 == pytest.approx(parameters_m, abs=0.051)
    assert encoder / 1e6 == pytest.approx(encoder_m, abs=0.051)
    assert count_macs(network, (272, 32, 32)) / 1e9 == pytest.approx(gmacs, abs=0.0051)
    assert encoded.shape == (2, *encoding)


def test_the_medium_preset_has_the_size_it_states() -> None:
    with torch.device("meta"):
        network = unet_medium(168)
    assert count_parameters(network) / 1e6 == pytest.approx(11.4, abs=0.05)
    assert count_macs(network, (168, 16, 16)) / 1e9 == pytest.approx(0.66, abs=0.005)


def test_step_1_has_the_embedding_of_step_0_in_guided_diffusion() -> None:
    # Cosines, then sines, of the frequencies 1 and 1e-4^(1/2).
    embedding = timestep_embedding(torch.tensor([1, 2]), 4)
    expected = [[1, 1, 0, 0], [math.cos(1), math.cos(0.01), math.sin(1), math.sin(0.01)]]
    torch.testing.assert_close(embedding, torch.tensor(expected))


def test_presets_are_ordered_by_size() -> None:
    with torch.device("meta"):
        sizes = [count_parameters(p(168)) for p in (unet_tiny, unet_small, unet_medium, unet_base)]
    assert sizes == sorted(sizes)


def test_a_new_network_predicts_zero(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 8, 8, generator=generator)
    assert not unet_tiny(5)(x, torch.tensor([7])).any()


def test_the_timestep_scales_and_shifts_the_normalised_features(generator: torch.Generator) -> None:
    # Scale -1 and shift 0 cancel the branch: norm * (1 + scale) + shift = 0.
    block = ResBlock(4, 4, embedding_dim=2)
    x, embedding = torch.randn(1, 4, 3, 3, generator=generator), torch.zeros(1, 2)
    with torch.no_grad():
        block.conv_out.weight.fill_(0.1)
        assert not torch.allclose(block(x, embedding), x)
        block.embedding.bias.copy_(torch.tensor([-1.0] * 4 + [0.0] * 4))
        assert torch.equal(block(x, embedding), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "positive width"),
        ({"multipliers": ()}, "positive width"),
        ({"width": 5, "num_heads": 1}, "width must be even"),
        ({"width": 6, "num_heads": 4}, "num_heads"),
    ],
)
def test_an_impossible_network_is_rejected(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UNet(4, **arguments)  # type: ignore[arg-type]


def test_a_grid_that_cannot_be_halved_is_rejected() -> None:
    network = UNet(4, width=8, multipliers=(1, 2, 2), num_blocks=1)
    with pytest.raises(InputError, match=r"multiple of 4 .* 6 x 8.* multipliers"):
        network(torch.zeros(1, 4, 6, 8), torch.tensor([1]))


def test_the_spec_of_a_network_is_its_public_class_and_plain_arguments() -> None:
    spec = network_spec(UNet(4, width=8, multipliers=(1, 2), num_blocks=1, attention_factors=(2,)))
    assert spec == {
        "class_path": "omiad.networks.UNet",
        "init_args": {
            "channels": 4,
            "width": 8,
            "multipliers": [1, 2],
            "num_blocks": 1,
            "attention_factors": [2],
            "num_heads": 4,
        },
    }


def test_a_network_can_be_built_from_its_private_class_path() -> None:
    network = build_network(network_spec(unet_tiny(4)) | {"class_path": "omiad.networks.unet.UNet"})
    assert type(network) is UNet


@pytest.mark.parametrize(
    "class_path", ["omiad.networks.NoNet", "no_package.Net", "Net", "torch.nn.Linear"]
)
def test_a_class_path_that_is_not_a_network_is_rejected(class_path: str) -> None:
    with pytest.raises(InputError, match=f"'{class_path}'"):
        build_network({"class_path": class_path, "init_args": {}})
