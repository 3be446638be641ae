from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from omiad.networks import Network, UNet, cost_summary, count_macs, count_parameters, unet_base
from omiad.networks.layers import Attention


class AttentionNetwork(Network):
    """The smallest network: one attention layer, which is also the encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.config = {"channels": channels}
        self.attention = Attention(channels, num_heads=2)

    def encode(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.attention(x)
        return out

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        encoding = self.encode(x, t)
        return encoding, encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        return self.parameters()


def test_shared_parameters_are_counted_once() -> None:
    layer = nn.Linear(3, 2)  # 6 weights, 2 biases
    assert count_parameters(nn.Sequential(layer, layer)) == 8


@pytest.mark.parametrize("grid", [(4, 4), (8, 4)])
def test_the_products_of_attention_are_counted(grid: tuple[int, int]) -> None:
    channels, tokens = 6, grid[0] * grid[1]
    # Queries, keys, values and projection: 4 c^2 n; scores and weighted sum: 2 c n^2.
    expected = 4 * channels**2 * tokens + 2 * channels * tokens**2
    assert count_macs(AttentionNetwork(channels), (channels, *grid)) == expected


def test_counting_does_not_change_the_network() -> None:
    network = UNet(4, width=8, multipliers=(1, 2), num_blocks=1).requires_grad_(False).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    with torch.inference_mode():
        count_macs(network, (4, 8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_summary_names_size_and_cost() -> None:
    with torch.device("meta"):
        summary = cost_summary(unet_base(272), (272, 32, 32))
    assert summary == "UNet: 40.2 M parameters (encoder 12.0 M), 6.95 GMACs per image"
