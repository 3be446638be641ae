"""What every network must do; a new network joins `BUILD`."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from omiad.networks import DiT, Network, UNet, UViT, build_network, network_spec

CHANNELS = 6
T = torch.tensor([1, 500, 1000])
BUILD = {
    "UNet": lambda: UNet(CHANNELS, width=16, multipliers=(1, 2), num_blocks=1, num_heads=2),
    "UNet of three levels": lambda: UNet(
        CHANNELS, width=8, multipliers=(1, 2, 2), num_blocks=2, attention_factors=(4,)
    ),
    "DiT": lambda: DiT(CHANNELS, dim=32, depth=4, num_heads=2),
    "UViT": lambda: UViT(CHANNELS, dim=32, depth=4, num_heads=2),
}


def perturbed(network: Network) -> Network:
    """Change the zero-initialised layers, which block gradients in a new network."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(params=BUILD.values(), ids=list(BUILD))
def network(request: pytest.FixtureRequest) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # noqa: TID251 (torch initialises from its global state)
        return perturbed(request.param())


@pytest.fixture
def x(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(3, CHANNELS, 8, 8, generator=generator)


@pytest.mark.parametrize("grid", [(8, 8), (8, 4), (12, 20)])  # 12 x 20 halves to 3 x 5
def test_one_pass_gives_output_and_encoding_on_any_grid(
    network: Network, grid: tuple[int, int], generator: torch.Generator
) -> None:
    x = torch.randn(3, CHANNELS, *grid, generator=generator)
    output, encoding = network.forward_and_encode(x, T)
    assert output.shape == x.shape
    assert torch.equal(network(x, T), output)
    assert torch.equal(network.encode(x, T), encoding)


def test_output_depends_on_the_timestep(network: Network, x: torch.Tensor) -> None:
    assert not torch.allclose(network(x, T), network(x, T.flip(0)))


def test_a_sample_does_not_depend_on_its_batch(network: Network, x: torch.Tensor) -> None:
    torch.testing.assert_close(network(x, T)[1:2], network(x[1:2], T[1:2]))


def test_every_level_depends_on_the_input_and_the_encoding_on_every_encoder_parameter(
    network: Network, x: torch.Tensor
) -> None:
    levels = network.encode_levels(x.requires_grad_(), T)
    for level in levels:
        assert level.shape[0] == len(x)
        (gradient,) = torch.autograd.grad(level.square().mean(), x, retain_graph=True)
        assert gradient.abs().sum() > 0
    levels[-1].mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.encoder_parameters())


def test_gradients_reach_every_parameter(network: Network, x: torch.Tensor) -> None:
    network(x, T).square().mean().backward()
    without = [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0]
    assert without == []


def test_a_frozen_network_passes_gradients_to_its_input(network: Network, x: torch.Tensor) -> None:
    network.requires_grad_(False)
    network(x.requires_grad_(), T).square().mean().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(p.grad is None for p in network.parameters())


def test_the_spec_of_a_network_builds_an_equal_one(network: Network, x: torch.Tensor) -> None:
    twin = build_network(network_spec(network))
    twin.load_state_dict(network.state_dict())
    assert torch.equal(twin(x, T), network(x, T))


def test_half_precision_gives_finite_float32(network: Network, x: torch.Tensor) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(x, T)
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()
    exact = network(x, T)
    assert (output - exact).abs().max() < 0.1 * exact.abs().max()


def test_it_overfits_eight_samples(network: Network, generator: torch.Generator) -> None:
    x, y = torch.randn(2, 8, CHANNELS, 4, 4, generator=generator)
    t = torch.arange(1, 9) * 100
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = F.mse_loss(network(x, t), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Measured over three seeds: at most 0.16, of the U-Net with three levels.
    assert losses[-1] < 0.3 * losses[0]
