"""Stage 2: adversarial score distillation of AMDM into a one-step generator (section 3.3).

The four parts of Fig. 1 and the paper's letters: generator theta, teacher score phi (frozen
AMDM), student score psi, and the discriminator, which is psi's encoder.
"""

import copy
import logging
from collections.abc import Sequence
from typing import Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.detector import Detector
from omiad.diffusion import AdversarialDiffusion, Denoiser, Weighting
from omiad.diffusion.sampling import one_step_reconstruct
from omiad.errors import InputError
from omiad.modules.adversarial_diffusion import AdversarialDiffusionDistillation
from omiad.modules.detection import DetectionModule
from omiad.modules.diagnosis import Diagnosis
from omiad.modules.distillation import Distillation, ScoreDistillation
from omiad.modules.duration import run_images
from omiad.modules.ema import ema_decay, ema_update
from omiad.modules.gradients import frozen, parameter_distance, zero_nonfinite_gradients
from omiad.modules.randomness import SampleDraws
from omiad.networks import Heads, Network, describe
from omiad.scoring import Scoring
from omiad.types import FeatureBatch

logger = logging.getLogger(__name__)


def sida_adam(parameters: ParamsT) -> Optimizer:
    """Return SiDA's optimiser of either network: Adam without momentum, rate 1e-5."""
    return torch.optim.Adam(parameters, lr=1e-5, betas=(0.0, 0.999))


class OmiADModule(DetectionModule):
    """Distil a trained AMDM into a generator that reconstructs in one step (Algorithm 1).

    Network, parameterisation, schedule, backbone and feature statistics are the teacher's.
    The trainer's max_steps counts optimiser steps: two for each batch, one while only the student
    trains.

    Args:
        teacher: Checkpoint of the AMDM to distil.
        student_optimizer: Optimiser of the student score psi.
        generator_optimizer: Optimiser of the generator theta; for an epsilon-network, whose output
            is amplified at t_init, take a tenth of the default rate.
        add: Distil by ADD with these weights instead of Algorithm 1. student_optimizer then trains
            its heads (ADD's rate is 1e-4), and options of psi, eq. 15 and the lambdas do nothing.
        t_init: Step that images are noised to (eq. 12); the teacher's if not given.
        t_max: Noisiest step the scores are compared at.
        alpha: Weight of the squared term in eq. 15.
        lambda_student_adv: Weight of the discriminator's loss beside psi's denoising loss, both
            means over elements.
        lambda_generator_adv: Weight of the adversarial loss beside the distillation loss; 0 in
            both lambdas distils without a discriminator.
        weighting: gamma(t) of psi's loss, by right the teacher's; auto picks the one that belongs
            to the parameterisation.
        generator_weighting: gamma(t) of eq. 15: sid divides by the mean error per sample in x_0
            space, one is the unit weight in noise space.
        student_warmup_fraction: Share of the run in which only psi (or ADD's heads) trains, at most
            100,000 images.
        adversarial_start_fraction: Share of the run after which theta's adversarial loss joins, at
            most 200,000 images.
        gradient_clip: Largest gradient norm of each optimiser.
        ema_fraction: Half-life of theta's averaged weights as a share of the images seen, at most
            500,000 images; 0 turns averaging off, also when a checkpoint is tested.
        num_noise_draws: Noise maps whose anomaly maps are averaged.
        scoring: How the residual becomes an anomaly map and an image score; the teacher's if not
            given.
        seed: Seed of the training noise and of the noise that images are scored with.
    """

    kind = "OmiAD"
    precisions = ("32-true", "bf16-mixed")
    """Gradients are mended and clipped by hand, which float16's loss scaling does not allow."""

    def __init__(
        self,
        teacher: str,
        student_optimizer: OptimizerCallable = sida_adam,
        generator_optimizer: OptimizerCallable = sida_adam,
        *,
        add: AdversarialDiffusion | None = None,
        t_init: int | None = None,
        t_max: int = 990,
        alpha: float = 1.0,
        lambda_student_adv: float = 0.01,
        lambda_generator_adv: float = 0.01,
        weighting: Weighting = "auto",
        generator_weighting: Literal["sid", "one"] = "sid",
        student_warmup_fraction: float = 0.05,
        adversarial_start_fraction: float = 0.1,
        gradient_clip: float = 1.0,
        ema_fraction: float = 0.05,
        num_noise_draws: int = 1,
        scoring: Scoring | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if add is not None:
            self.hparams["add"] = vars(add)  # plain, for the checkpoint
        if lambda_generator_adv and not lambda_student_adv:
            raise InputError(
                f"lambda_generator_adv {lambda_generator_adv} needs a discriminator, but "
                f"lambda_student_adv is 0 and trains none. Set both to 0, or neither."
            )
        self.automatic_optimization = False
        self.teacher_path = teacher
        self.student_optimizer = student_optimizer
        self.generator_optimizer = generator_optimizer
        self.add = add
        self.t_init = t_init
        self.t_max = t_max
        self.alpha = alpha
        self.lambda_student_adv = lambda_student_adv
        self.lambda_generator_adv = lambda_generator_adv
        self.weighting = weighting
        self.generator_weighting = generator_weighting
        self.student_warmup_fraction = student_warmup_fraction
        self.adversarial_start_fraction = adversarial_start_fraction
        self.gradient_clip = gradient_clip
        self.ema_fraction = ema_fraction
        self.num_noise_draws = num_noise_draws
        self.scoring = scoring
        self.seed = seed
        self.images_seen = 0
        self.num_generator_steps = 0
        self.num_nonfinite_gradients = 0

    def setup(self, stage: str) -> None:
        """Start generator and student from the teacher, theta <- phi and psi <- phi."""
        if not self.is_built:
            self._build()
        elif stage == "test":
            self.data.use_extractor(self.detector.extractor)
        if stage == "fit":
            self.check_precision()
            self._check_strategy()
            self.check_t_init(self.detector.normalizer.normalized_rms(self.data.statistics))
            extractor = self.detector.extractor
            shape = (extractor.num_channels, extractor.feature_size, extractor.feature_size)
            network = cast(Network, self.generator.network)
            logger.info("generator: %s", describe(network, shape))

    def _check_strategy(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(
            "find_unused_parameters"
        ):
            raise InputError(
                "Each step of OmiAD trains one of two networks, which several processes share only "
                "if they look for the other's parameters. Set --trainer.strategy "
                "ddp_find_unused_parameters_true."
            )

    def on_fit_start(self) -> None:
        """Refuse a teacher that is none, except for the run's own checkpoint it goes on from.

        Raises:
            InputError: If the teacher is not an AMDM.
        """
        kind = read_checkpoint(self.teacher_path)[CHECKPOINT_KEY]["kind"]
        if kind != "AMDM" and not self.is_restored:
            raise InputError(
                f"model.teacher '{self.teacher_path}' holds an {kind} model, but only an AMDM "
                f"checkpoint can be distilled. Give the checkpoint of stage 1."
            )

    def _build(self) -> None:
        teacher = Detector.load(self.teacher_path)
        self.teacher = teacher.denoiser.requires_grad_(False)
        self.generator = copy.deepcopy(self.teacher).requires_grad_(True)
        self.detector = Detector(
            extractor=self.data.extractor,
            normalizer=teacher.normalizer,
            denoiser=copy.deepcopy(self.teacher),
            scoring=self.scoring or teacher.scoring,
            t_init=teacher.t_init if self.t_init is None else self.t_init,
            num_noise_draws=self.num_noise_draws,
            seed=self.seed,
            autocast_dtype=self.data.extractor.autocast_dtype,
        )
        self.teacher.schedule.check_step(self.t_max, "t_max")
        self.check_extractor(teacher.spec, "the teacher")
        self.diagnosis = Diagnosis(self, self.t_max)
        self.way = self._score_distillation() if self.add is None else self._add(self.add)

    def _score_distillation(self) -> Distillation:
        self.student = copy.deepcopy(self.teacher).requires_grad_(True)
        return ScoreDistillation(
            self.teacher,
            self.student,
            self.diagnosis,
            t_max=self.t_max,
            alpha=self.alpha,
            lambda_student_adv=self.lambda_student_adv,
            lambda_generator_adv=self.lambda_generator_adv,
            weighting=self.weighting,
            generator_weighting=self.generator_weighting,
        )

    def _add(self, options: AdversarialDiffusion) -> Distillation:
        self.teacher.schedule.check_step(options.feature_step, "add.feature_step")
        network, x = cast(Network, self.teacher.network), self.detector.noise[0]
        self.heads = Heads.on(network, x, width=options.head_width, seed=self.seed)
        return AdversarialDiffusionDistillation(
            self.teacher, self.heads, self.diagnosis, t_max=self.t_max, options=options
        )

    def train(self, mode: bool = True) -> "OmiADModule":
        """Switch to training mode, except for the frozen teacher and the detector."""
        super().train(mode)
        if self.is_built:
            self.teacher.eval()
            self.detector.eval()
        return self

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> None:
        """Update psi, then theta, on one batch and one generator output (Algorithm 1)."""
        x_0 = self.detector.normalizer(batch.features)
        draws = SampleDraws(
            seed=self.seed, epoch=self.current_epoch, index=batch.index, device=self.device
        )
        noise = draws.normal(tuple(x_0.shape[1:]))
        distil = self.images_seen >= self.student_warmup_images
        with torch.set_grad_enabled(distil):
            x_g = self.reconstruct(self.generator, x_0, noise)
        first, second = cast("list[LightningOptimizer]", self.optimizers())
        opponent = self.way.opponent
        self._step(self.way.opponent_loss(x_g.detach(), x_0, draws), opponent, first)
        if distil:
            adversarial = self.images_seen >= self.adversarial_start_images
            with frozen(opponent):
                loss = self.way.generator_loss(x_g, x_0, draws, adversarial=adversarial)
                self._step(loss, self.generator, second)
            self.num_generator_steps += 1
        self._count(len(batch.index) * self.trainer.world_size)
        if self.diagnosis.is_due:
            of_teacher = self.reconstruct(self.teacher, x_0, noise)
            self.diagnosis.state(self.generator, self.teacher, x_g.detach(), of_teacher)
            self.diagnosis.log("generator_steps", float(self.num_generator_steps))
            self.diagnosis.log("nonfinite_gradients", float(self.num_nonfinite_gradients))

    def reconstruct(self, denoiser: Denoiser, x_0: Tensor, noise: Tensor) -> Tensor:
        """Reconstruct x_0 (B, C, h, w) in one step from t_init: x_g of eq. 12."""
        t_init = self.detector.t_init
        return one_step_reconstruct(denoiser, denoiser.schedule, x_0, noise, t_init=t_init)

    @property
    def student_warmup_images(self) -> float:
        """Images before theta moves."""
        return self._share(self.student_warmup_fraction, 100_000)

    @property
    def adversarial_start_images(self) -> float:
        """Images before theta's adversarial loss joins."""
        return self._share(self.adversarial_start_fraction, 200_000)

    def _share(self, fraction: float, most: int) -> float:
        """Return a share of the images this run will see, but at most that many."""
        if not fraction:
            return 0
        trainer = self.trainer
        # A data set smaller than a batch is one batch.
        batch = min(self.data.batch_size * trainer.world_size, len(self.data.train_features))
        # A batch is one optimiser step in psi's warm-up and two afterwards.
        steps = 2 - self.student_warmup_fraction
        run = run_images(trainer, batch_images=batch, steps_per_batch=steps)
        return min(most, fraction * run)

    @property
    def trained(self) -> nn.Module:
        """The generator's network."""
        return self.generator.network

    def _step(self, loss: Tensor, module: nn.Module, optimizer: LightningOptimizer) -> None:
        name = "generator" if module is self.generator else self.way.name
        self.check_finite(loss, f"The loss of the {name}")
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.num_nonfinite_gradients += zero_nonfinite_gradients(module)
        self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
        optimizer.step()

    def _count(self, batch_images: int) -> None:
        self.images_seen += batch_images
        decay = ema_decay(batch_images, self.images_seen, fraction=self.ema_fraction)
        ema_update(self.detector.denoiser.network, self.generator.network, decay)

    def on_train_end(self) -> None:
        """Say how far the generator moved; an unmoved generator is not a result."""
        logger.info(
            "generator: %d steps, relative distance from the teacher %.3g",
            self.num_generator_steps,
            parameter_distance(self.generator, self.teacher),
        )

    def configure_optimizers(self) -> Sequence[Optimizer]:
        """Return psi's and theta's optimisers, in this order."""
        return (
            self.student_optimizer(self.way.opponent.parameters()),
            self.generator_optimizer(self.generator.parameters()),
        )

    def progress(self) -> dict[str, int]:
        """Counters that a resumed run must continue."""
        return {
            "images_seen": self.images_seen,
            "generator_steps": self.num_generator_steps,
            "nonfinite_gradients": self.num_nonfinite_gradients,
        }

    def load_progress(self, progress: dict[str, int]) -> None:
        """Restore `progress`."""
        self.images_seen = progress["images_seen"]
        self.num_generator_steps = progress["generator_steps"]
        self.num_nonfinite_gradients = progress["nonfinite_gradients"]
