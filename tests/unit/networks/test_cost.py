"""Sizes and costs of networks: those of the originals, and those that docstrings state."""

import copy
from collections.abc import Callable

import pytest
import torch

from omiad import networks
from omiad.networks import DiT, Network, UNet, UViT, cost_summary, count_macs, count_parameters


def rounded(value: float, printed: str) -> str:
    """Round a value to the digits of a printed one."""
    return f"{value:.{len(printed.partition('.')[2])}f}"


@pytest.mark.parametrize(
    ("network", "arguments", "parameters", "encoder", "macs"),
    [
        # The code of guided-diffusion, DiT and U-ViT with these settings, for 272 channels at
        # 32 x 32, without classes. Millions of parameters, and GMACs.
        (UNet, {}, "40.2", "12.0", "6.95"),
        (UNet, {"attention_factors": (2,)}, "38.9", "11.4", "6.86"),
        (UNet, {"num_blocks": 3}, "53.2", "17.2", "9.02"),
        (UNet, {"multipliers": (1, 2, 3, 4)}, "88.7", "23.4", "8.58"),
        (UNet, {"multipliers": (2, 2, 2), "attention_factors": (2,)}, "36.6", "11.0", "13.74"),
        (UNet, {"width": 64, "multipliers": (1, 2, 2), "num_blocks": 1}, "5.3", "1.2", "1.41"),
        (DiT, {}, "33.4", None, "6.26"),
        (DiT, {"dim": 768, "num_heads": 12, "patch": 4}, "136", None, "5.98"),
        (DiT, {"dim": 512, "num_heads": 8}, "58.9", None, "10.8"),
        (UViT, {}, "26.4", None, "7.92"),
        (UViT, {"dim": 320, "num_heads": 5}, "18.7", None, "5.83"),
        (UViT, {"dim": 512, "num_heads": 8}, "46.0", None, "13.2"),
    ],
)
def test_size_and_cost_are_those_of_the_original(
    network: Callable[..., Network],
    arguments: dict[str, object],
    parameters: str,
    encoder: str | None,
    macs: str,
) -> None:
    with torch.device("meta"):
        built = network(272, **arguments)
    count = count_parameters(built)
    if network is not UNet:
        # The originals store a table of positions; U-ViT's has a row for the timestep.
        side = 32 // built.config["patch"]
        count += (side**2 + (network is UViT)) * built.config["dim"]
    assert rounded(count / 1e6, parameters) == parameters
    assert rounded(count_macs(built, (272, 32, 32)) / 1e9, macs) == macs
    if encoder is not None:
        summary = cost_summary(built, (272, 32, 32))
        assert summary.startswith(f"UNet: {parameters} M parameters (encoder {encoder} M), ")


@pytest.mark.parametrize(
    ("preset", "channels", "parameters", "macs"),
    [
        ("unet_small", 152, "5.1", "0.31"),
        ("dit_small", 152, "7.1", "0.32"),
        ("uvit_small", 152, "3.8", "0.30"),
        ("unet_medium", 168, "11.4", "0.66"),
        ("dit_medium", 168, "15.6", "0.68"),
        ("uvit_medium", 168, "9.9", "0.71"),
    ],
)
def test_a_preset_has_the_size_and_cost_it_states(
    preset: str, channels: int, parameters: str, macs: str
) -> None:
    with torch.device("meta"):
        network = getattr(networks, preset)(channels)
    assert rounded(count_parameters(network) / 1e6, parameters) == parameters
    assert rounded(count_macs(network, (channels, 16, 16)) / 1e9, macs) == macs
    assert f"{parameters} M parameters" in getattr(networks, preset).__doc__


@pytest.mark.parametrize("grid", [(4, 4), (8, 4)])
def test_the_products_of_attention_are_counted(grid: tuple[int, int]) -> None:
    def macs(attention_factors: tuple[int, ...]) -> int:
        network = UNet(6, width=8, multipliers=(1,), attention_factors=attention_factors)
        return count_macs(network, (6, *grid))

    # Attention follows two blocks of the encoder and three of the decoder. Queries, keys, values
    # and projection take 4 c^2 n; scores and weighted sum take 2 c n^2.
    tokens = grid[0] * grid[1]
    assert macs((1,)) - macs(()) == 5 * (4 * 8**2 * tokens + 2 * 8 * tokens**2)


def test_counting_does_not_change_the_network() -> None:
    network = UNet(4, width=8, multipliers=(1, 2), num_blocks=1).requires_grad_(False).eval()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        count_macs(network, (4, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(map(torch.equal, before.values(), network.state_dict().values()))
