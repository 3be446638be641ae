import pytest
import torch

from omiad.errors import InputError
from omiad.networks import (
    UNet,
    build_network,
    count_macs,
    count_parameters,
    describe,
    unet_base,
    unet_medium,
    unet_small,
    unet_tiny,
)


@pytest.mark.parametrize(
    ("arguments", "parameters_m", "gmacs"),
    [
        # guided-diffusion's own U-Net with these settings, 272 channels at 32 x 32.
        ({}, 40.2, 6.95),
        ({"attention_factors": (2,)}, 38.9, 6.86),
        ({"multipliers": (1, 2, 2)}, 29.7, 6.90),
        ({"multipliers": (1, 2, 3, 4)}, 88.7, 8.58),
        ({"width": 64, "multipliers": (1, 2, 2), "num_blocks": 1}, 5.3, 1.41),
        ({"width": 64, "attention_factors": (2,)}, 9.9, 1.92),
        ({"width": 192}, 90.0, 15.03),
    ],
)
def test_size_and_cost_are_guided_diffusions(
    arguments: dict[str, object], parameters_m: float, gmacs: float
) -> None:
    with torch.device("meta"):
        network = UNet(272, **arguments)  # type: ignore[arg-type]
    assert count_parameters(network) / 1e6 == pytest.approx(parameters_m, abs=0.06)
    assert count_macs(network, (272, 32, 32)) / 1e9 == pytest.approx(gmacs, abs=0.006)


def test_the_discriminator_map_of_the_default_is_four_by_four() -> None:
    with torch.device("meta"):
        network = unet_base(272)
        encoding = network.encode(torch.empty(2, 272, 32, 32), torch.tensor([1, 2]))
    assert encoding.shape == (2, 256, 4, 4)


def test_presets_grow() -> None:
    with torch.device("meta"):
        sizes = [count_parameters(p(168)) for p in (unet_tiny, unet_small, unet_medium, unet_base)]
    assert sizes == sorted(sizes)


def test_a_new_network_predicts_zero(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 8, 8, generator=generator)
    assert not unet_tiny(5)(x, torch.tensor([7])).any()


def test_a_description_names_size_and_cost() -> None:
    with torch.device("meta"):
        network = unet_base(272)
    assert describe(network, (272, 32, 32)) == "UNet: 40.2 M parameters, 6.95 GMACs per image"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "needs a positive width"),
        ({"multipliers": ()}, "needs a positive width"),
        ({"width": 6, "num_heads": 4}, "num_heads must divide"),
    ],
)
def test_an_impossible_network_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        UNet(4, **arguments)  # type: ignore[arg-type]


def test_a_grid_that_cannot_be_halved_is_refused() -> None:
    network = UNet(4, width=8, multipliers=(1, 2, 2), num_blocks=1)
    with pytest.raises(InputError, match="must be a multiple of 4, but got 6 x 8"):
        network(torch.zeros(1, 4, 6, 8), torch.tensor([1]))


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("omiad.networks.NoNet", "cannot be imported"),
        ("no_package.Net", "cannot be imported"),
        ("Net", "cannot be imported"),
        ("torch.nn.Linear", "is not a network of omiad"),
    ],
)
def test_a_class_that_is_no_network_is_refused(class_path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_network({"class_path": class_path, "init_args": {}})
