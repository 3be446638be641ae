"""Stage 1: the adaptively masked diffusion model (paper section 3.2)."""

import copy
import logging
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from omiad.detector import Detector
from omiad.diffusion import Denoiser, Masking, NoiseSchedule, Parameterization, Target, Weighting
from omiad.diffusion.losses import masked_denoising_loss, timestep_weight
from omiad.diffusion.sampling import Sampler
from omiad.features import FeatureNormalizer
from omiad.features.normalization import FeatureNorm
from omiad.modules.detection import DetectionModule
from omiad.modules.ema import ema_decay, ema_update
from omiad.modules.randomness import SampleDraws
from omiad.networks import Network, describe
from omiad.scoring import Scoring
from omiad.types import FeatureBatch

logger = logging.getLogger(__name__)


def paper_adam(parameters: ParamsT) -> Optimizer:
    """Return the paper's optimiser (section 4.1): Adam, rate 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


class AMDMModule(DetectionModule):
    """Train a diffusion model on masked features of normal images of all categories (eq. 11).

    Args:
        network: Class or preset of the denoising network, called with the number of feature
            channels, e.g. omiad.networks.unet_base.
        optimizer: Optimiser of the network's parameters.
        parameterization: What the network predicts: v, epsilon (the paper's wording) or x0.
        num_timesteps: Steps T of the noise schedule.
        masking: How much of the features is hidden at each step.
        weighting: gamma(t) of eq. 11; auto picks the one that belongs to the parameterisation.
        target: x0 trains on eq. 11 (inpaint what is hidden), noise on eq. 5.
        feature_norm: none (raw features, as the paper), scalar (divide by the training rms) or
            channel (standardise each channel on normal training images).
        t_init: Step that images are noised to when they are scored.
        num_steps: DDIM steps from t_init when images are scored; 1 is one-step reconstruction.
        sampler: ddim, or ddpm to score by the ancestral sampler of eqs. 3 and 4, which takes every
            step from t_init.
        eta: DDIM's share of fresh noise in each step: 0 is deterministic, 1 has DDPM's variance.
        num_noise_draws: Noise maps whose anomaly maps are averaged.
        scoring: How the residual becomes an anomaly map and an image score.
        warmup_fraction: Share of the run over which the learning rate rises, at most 1000 steps.
        final_lr_fraction: Learning rate at the end relative to its peak, reached along a cosine;
            1 keeps it constant.
        gradient_clip: Largest gradient norm.
        ema_fraction: Half-life of the averaged weights as a share of the images seen, at most
            500,000 images; 0 turns averaging off, also when a checkpoint is tested.
        seed: Seed of the training noise and of the noise that images are scored with.
    """

    kind = "AMDM"

    def __init__(
        self,
        network: Callable[[int], Network],
        optimizer: OptimizerCallable = paper_adam,
        *,
        parameterization: Parameterization = "v",
        num_timesteps: int = 1000,
        masking: Masking = Masking(),  # noqa: B008 (frozen)
        weighting: Weighting = "auto",
        target: Target = "x0",
        feature_norm: FeatureNorm = "none",
        t_init: int = 960,
        num_steps: int = 10,
        sampler: Sampler = "ddim",
        eta: float = 0.0,
        num_noise_draws: int = 1,
        scoring: Scoring = Scoring(),  # noqa: B008 (frozen)
        warmup_fraction: float = 0.05,
        final_lr_fraction: float = 1.0,
        gradient_clip: float = 1.0,
        ema_fraction: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.build_network = network
        self.optimizer = optimizer
        self.parameterization = parameterization
        self.num_timesteps = num_timesteps
        self.masking = masking
        self.weighting = weighting
        self.target = target
        self.feature_norm = feature_norm
        self.t_init = t_init
        self.num_steps = num_steps
        self.sampler = sampler
        self.eta = eta
        self.num_noise_draws = num_noise_draws
        self.scoring = scoring
        self.warmup_fraction = warmup_fraction
        self.final_lr_fraction = final_lr_fraction
        self.gradient_clip = gradient_clip
        self.ema_fraction = ema_fraction
        self.seed = seed
        self.images_seen = 0

    def setup(self, stage: str) -> None:
        """Build the networks for the data's features; fit the normalisation before training."""
        if not self.is_built:
            self._build()
        elif stage == "test":
            self.data.use_extractor(self.detector.extractor)
        if stage == "fit":
            self.check_precision()
            normalizer = self.detector.normalizer
            normalizer.fit(self.data.statistics)
            self.check_t_init(normalizer.normalized_rms(self.data.statistics))
            grid = self.detector.extractor.feature_size
            channels = self.detector.extractor.num_channels
            logger.info("network: %s", describe(self.trained, (channels, grid, grid)))

    def _build(self) -> None:
        extractor = self.data.extractor
        with torch.random.fork_rng(devices=[]):
            # Initial weights depend on the seed alone, not on what drew random numbers before.
            torch.manual_seed(self.seed)  # noqa: TID251 (torch initialises from its global state)
            network = self.build_network(extractor.num_channels)
        schedule = NoiseSchedule(self.num_timesteps)
        self.denoiser = Denoiser(network, schedule, parameterization=self.parameterization)
        self.detector = Detector(
            extractor=extractor,
            normalizer=FeatureNormalizer(extractor.num_channels, kind=self.feature_norm),
            denoiser=copy.deepcopy(self.denoiser).requires_grad_(False),
            scoring=self.scoring,
            t_init=self.t_init,
            num_steps=self.num_steps,
            sampler=self.sampler,
            eta=self.eta,
            num_noise_draws=self.num_noise_draws,
            seed=self.seed,
            autocast_dtype=extractor.autocast_dtype,
        )

    @property
    def trained(self) -> Network:
        """The network being trained."""
        return cast(Network, self.denoiser.network)

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> Tensor:
        """Denoise one batch of masked, noisy features."""
        x_0 = self.detector.normalizer(batch.features)
        self._batch_images = len(x_0) * self.trainer.world_size
        draws = SampleDraws(
            seed=self.seed, epoch=self.current_epoch, index=batch.index, device=self.device
        )
        t = draws.steps(self.num_timesteps)
        shape = (x_0.shape[1], x_0.shape[2], x_0.shape[3])
        schedule = self.denoiser.schedule
        loss = masked_denoising_loss(
            self.denoiser,
            schedule,
            x_0,
            noise=draws.normal(shape),
            t=t,
            keep=self.masking.keep(
                draws.uniform(self.masking.uniform_shape(shape)), t, self.num_timesteps
            ),
            weight=timestep_weight(
                self.weighting, schedule, t, parameterization=self.parameterization
            ),
            target=self.target,
        ).mean()
        self.check_finite(loss, "The training loss")
        self.log("train/loss", loss, prog_bar=True)
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
        self.images_seen += self._batch_images
        decay = ema_decay(self._batch_images, self.images_seen, fraction=self.ema_fraction)
        ema_update(self.detector.denoiser.network, self.trained, decay)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with a linear warm-up and an optional cosine decay, both shares of the run."""
        optimizer = self.optimizer(self.trained.parameters())
        total = int(self.trainer.estimated_stepping_batches)
        warmup = min(1000, round(self.warmup_fraction * total))

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
        """Clip the gradient norm; the trainer's own clipping is not used."""
        self.clip_gradients(optimizer, self.gradient_clip, "norm")

    def progress(self) -> dict[str, int]:
        """Counters that a resumed run must continue."""
        return {"images_seen": self.images_seen}

    def load_progress(self, progress: dict[str, int]) -> None:
        """Restore `progress`."""
        self.images_seen = progress["images_seen"]
