"""Distillation end to end, with the real modules, where theory predicts the result.

The networks are optimal denoisers of Gaussians with a learnable mean and spread per channel. Such
networks depend only on means and variances, so the theory of Gaussian data holds for any features:
the teacher of standardised features has mean 0 and standard deviation 1, and a generator distilled
from this teacher must have both, wherever it starts.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny import amdm, data_of, fit, saved
from torch import Tensor, nn

from omiad import OmiADModule
from omiad.diffusion import NoiseSchedule
from omiad.networks import Network, trust


class GaussianDenoiser(Network):
    """E[x_0 | x_t] of data N(mean, std^2), per channel, after an affine encoder."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.config = {"channels": channels}
        self.gain, self.bias, self.mean, self.log_std = (
            nn.Parameter(torch.full((1, channels, 1, 1), v)) for v in (1.0, 0.0, 0.0, 0.0)
        )
        self.schedule = NoiseSchedule()

    def encode_levels(self, x: Tensor, t: Tensor) -> list[Tensor]:
        return [self.gain * x + self.bias]

    def forward_and_encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        encoding = self.encode(x, t)
        alpha, sigma = self.schedule.amplitudes(t)
        variance = (2 * self.log_std).exp()
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return self.mean + gain * (encoding - alpha * self.mean), encoding

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        return iter((self.gain, self.bias))


class WrongStart(Callback):
    """Set the generator apart from its teacher before the first step."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.generator.network
        with torch.no_grad():
            network.mean.fill_(self.mean)
            network.log_std.fill_(self.std).log_()


@pytest.fixture(scope="module")
def teacher(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trust(f"{__name__}.{GaussianDenoiser.__name__}")
    # The initial weights are optimal for standardised features, so the learning rate is 0.
    still = partial(torch.optim.SGD, lr=0.0)
    module = amdm(network=GaussianDenoiser, optimizer=still, parameterization="x0")
    folder = tmp_path_factory.mktemp("gaussian")
    return saved(fit(module, data_of(mvtec_root, folder, batch_size=8), folder, 1))


def distil(
    root: Path, folder: Path, teacher: Path, *, start: tuple[float, float], alpha: float
) -> tuple[float, float]:
    """Return the worst mean and the worst standard deviation, over channels, of x_g."""
    module = OmiADModule(
        str(teacher),
        partial(torch.optim.Adam, lr=0.05, betas=(0.0, 0.999)),
        partial(torch.optim.Adam, lr=0.02, betas=(0.0, 0.999)),
        alpha=alpha,
    )
    fit(module, data_of(root, folder, batch_size=8), folder, 400, WrongStart(*start))
    x_0 = module.detector.normalizer(torch.stack(list(module.data.features("train"))))
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x_g = module.reconstruct(module.generator, x_0, noise)
    mean, std = x_g.mean((0, 2, 3)), x_g.std((0, 2, 3))
    return float(mean[mean.abs().argmax()]), float(std[(std - 1).abs().argmax()])


# At t = 500, a network with a spread of 10 has outputs with a standard deviation of 3.2 and a tenth
# of its mean; one with a spread of 0.3 has outputs with a deviation of 0.03 and its mean.
@pytest.mark.parametrize("start", [(1.0, 0.3), pytest.param((8.0, 10.0), marks=pytest.mark.slow)])
def test_a_wrong_generator_converges_to_the_mean_and_spread_of_the_data(
    mvtec_root: Path, tmp_path: Path, teacher: Path, start: tuple[float, float]
) -> None:
    mean, std = distil(mvtec_root, tmp_path, teacher, start=start, alpha=1.0)
    # Measured: 0.01 and 1.02 on average; single channels differ by about 0.08 and 0.04.
    assert mean == pytest.approx(0, abs=0.35)
    assert std == pytest.approx(1, abs=0.2)


@pytest.mark.slow  # tests/unit/diffusion/test_losses.py has the gradient
def test_line_13_as_printed_makes_an_over_dispersed_generator_diverge(
    mvtec_root: Path, tmp_path: Path, teacher: Path
) -> None:
    # It subtracts alpha |d|^2 from an expression that contains it: alpha = 2 in eq. 15.
    _, std = distil(mvtec_root, tmp_path, teacher, start=(0.5, 10.0), alpha=2.0)
    assert std > 6  # it started at 3.2
