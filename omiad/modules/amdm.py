"""Stage 1: the adaptively masked diffusion model (paper section 3.2)."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from omiad.detector import Detector
from omiad.diffusion import Denoiser, Masking, NoiseSchedule, Parameterization, Weighting
from omiad.diffusion.losses import masked_denoising_loss, timestep_weight
from omiad.features import FeatureNormalizer
from omiad.features.normalization import FeatureNorm
from omiad.modules.ema import ema_decay, ema_update
from omiad.modules.randomness import SampleDraws
from omiad.modules.training import TrainingModule, seeded
from omiad.networks import Network
from omiad.scoring import Scoring
from omiad.types import FeatureBatch

WARMUP_FRACTION = 0.05
"""Share of the run over which the learning rate rises, 1,000 steps at most."""


def paper_adam(parameters: ParamsT) -> Optimizer:
    """Return the paper's optimiser (section 4.1): Adam, rate 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


class AMDMModule(TrainingModule):
    """Train a diffusion model on masked features of normal images of all categories (eq. 11).

    `network` and `optimizer` decide cost and quality of training, `feature_norm` and `t_init` fit
    the model to the backbone, and `scoring` makes scores of residuals. The defaults are the
    paper's; configs/amdm_folder.yaml has the settings that were measured on photographs.

    Args:
        network: Class or preset of the denoising network, called with the number of feature
            channels, e.g. omiad.networks.unet_base.
        optimizer: Optimiser of the network's parameters.
        feature_norm: none (raw features, the paper's), scalar (divide by the training rms) or
            channel (standardise each channel on normal training images).
        t_init: Step that features are noised to for scoring.
        num_steps: DDIM steps from t_init for scoring; 1 reconstructs in one step.
        scoring: How a residual becomes an anomaly map and an image score.
        masking: How much of the features is hidden at each step.
        weighting: gamma(t) of eq. 11; auto picks the weight that belongs to the parameterisation.
        parameterization: What the network predicts: v, epsilon (the paper's wording) or x0.
        final_lr_fraction: Learning rate at the end divided by its peak, reached along a cosine; 1
            keeps the rate constant.
        ema_fraction: Half-life of the averaged weights as a share of the images seen, 500,000
            images at most; 0 turns averaging off.
        gradient_clip: Largest gradient norm.
        seed: Seed of initial weights, training noise and the noise for scoring.
    """

    trained = "denoiser"
    _new_images = 0  # since the last optimiser step

    def __init__(
        self,
        network: Callable[[int], Network],
        optimizer: OptimizerCallable = paper_adam,
        *,
        feature_norm: FeatureNorm = "none",
        t_init: int = 960,
        num_steps: int = 10,
        scoring: Scoring = Scoring(),  # noqa: B008 (frozen)
        masking: Masking = Masking(),  # noqa: B008 (frozen)
        weighting: Weighting = "auto",
        parameterization: Parameterization = "v",
        final_lr_fraction: float = 1.0,
        ema_fraction: float = 0.05,
        gradient_clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.build_network = network
        self.optimizer = optimizer
        self.feature_norm = feature_norm
        self.t_init = t_init
        self.num_steps = num_steps
        self.scoring = scoring
        self.masking = masking
        self.weighting = weighting
        self.parameterization = parameterization
        self.final_lr_fraction = final_lr_fraction
        self.ema_fraction = ema_fraction
        self.gradient_clip = gradient_clip
        self.seed = seed

    def build(self) -> None:
        """Build network and detector, and fit the normalisation to the training features."""
        extractor = self.data.extractor
        channels = extractor.num_channels
        with seeded(self.seed):
            network = self.build_network(channels)
        self.denoiser = Denoiser(network, NoiseSchedule(), parameterization=self.parameterization)
        self.detector = Detector(
            extractor=extractor,
            normalizer=FeatureNormalizer(channels, kind=self.feature_norm),
            denoiser=copy.deepcopy(self.denoiser).requires_grad_(False),
            scoring=self.scoring,
            kind="AMDM",
            t_init=self.t_init,
            num_steps=self.num_steps,
            seed=self.seed,
        )
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.detector.normalizer.fit(self.data.statistics)

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> Tensor:
        """Denoise one batch of masked, noisy features (eqs. 6 to 11)."""
        x_0 = self.detector.normalizer(batch.features)
        draws = SampleDraws(
            seed=self.seed, epoch=self.current_epoch, index=batch.index, device=self.device
        )
        schedule = self.denoiser.schedule
        t = draws.steps(schedule.num_timesteps)
        shape = (x_0.shape[1], x_0.shape[2], x_0.shape[3])
        noise = draws.normal(shape)
        uniform = draws.uniform(self.masking.uniform_shape(shape))
        loss = masked_denoising_loss(
            self.denoiser,
            schedule,
            x_0,
            noise=noise,
            t=t,
            keep=self.masking.keep(uniform, t, schedule.num_timesteps),
            weight=timestep_weight(
                self.weighting, schedule, t, parameterization=self.parameterization
            ),
        ).mean()
        self.check_finite(loss, "The training loss")
        self.log("train/loss", loss, prog_bar=True)
        self._new_images += len(x_0) * self.trainer.world_size
        return loss

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step, then move the averaged weights, so that a checkpoint never falls in between."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.images_seen += self._new_images
        decay = ema_decay(self._new_images, self.images_seen, fraction=self.ema_fraction)
        self._new_images = 0
        ema_update(self.detector.denoiser.network, self.denoiser.network, decay)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser with a linear warm-up and a cosine decay, both shares of the run."""
        optimizer = self.optimizer(self.denoiser.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        warmup = min(1000, round(WARMUP_FRACTION * total))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = min(1.0, (step - warmup) / max(1, total - warmup))
            cosine = (1 + math.cos(math.pi * progress)) / 2
            return self.final_lr_fraction + (1 - self.final_lr_fraction) * cosine

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient norm to `gradient_clip`."""
        self.clip_gradients(optimizer, self.gradient_clip, "norm")
