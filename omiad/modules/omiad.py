"""Stage 2: adversarial score distillation of AMDM into a one-step generator (section 3.3).

The parts of Fig. 1 with the paper's letters: generator theta, teacher score phi (the frozen AMDM),
student score psi, and the discriminator, which is psi's encoder.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from lightning import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.detector import Detector
from omiad.diffusion import Denoiser, Weighting
from omiad.diffusion.losses import (
    discriminator_logits,
    discriminator_loss,
    distillation_weight,
    generator_adversarial_loss,
    score_distillation_loss,
    student_loss,
    timestep_weight,
)
from omiad.errors import InputError
from omiad.features import weights_hash
from omiad.modules.diagnostics import DistillationDiagnostics
from omiad.modules.ema import ema_decay, ema_update
from omiad.modules.gradients import frozen, zero_nonfinite_gradients
from omiad.modules.randomness import SampleDraws
from omiad.modules.training import TrainingModule
from omiad.networks import Network
from omiad.scoring import Scoring
from omiad.types import FeatureBatch


def sida_adam(parameters: ParamsT) -> Optimizer:
    """Return SiDA's optimiser of either network: Adam without momentum, rate 1e-5."""
    return torch.optim.Adam(parameters, lr=1e-5, betas=(0.0, 0.999))


class Losses(NamedTuple):
    """What one network is trained on in one batch, and what the diagnostics look at.

    Attributes:
        total: The loss that is minimised.
        logged: Figures to log, by name.
        gradients: Terms and the tensors whose gradient norms show how strongly each term pulls.
        by_timestep: Steps t (B,) and values (B,), logged as means over bands of steps.
    """

    total: Tensor
    logged: Mapping[str, Tensor]
    gradients: Mapping[str, tuple[Tensor, Sequence[Tensor]]]
    by_timestep: Mapping[str, tuple[Tensor, Tensor]]


class OmiADModule(TrainingModule):
    """Distil a trained AMDM into a generator that reconstructs in one step (Algorithm 1).

    Network, parameterisation, schedule, backbone and feature statistics are the teacher's.
    `teacher` and the two optimisers matter most. The trainer's max_steps counts optimiser steps:
    two for each batch, or one while only the student trains.

    Args:
        teacher: Checkpoint of the AMDM to distil.
        student_optimizer: Optimiser of the student score psi.
        generator_optimizer: Optimiser of the generator theta. For an epsilon-network, whose output
            is amplified at t_init, use a tenth of the default rate.
        t_init: Step that features are noised to (eq. 12); the teacher's by default.
        scoring: How a residual becomes an anomaly map and an image score; the teacher's by default.
        alpha: Weight of the squared term in eq. 15.
        lambda_student_adv: Weight of the discriminator's loss beside psi's denoising loss; both are
            means over elements.
        lambda_generator_adv: Weight of the adversarial loss beside the distillation loss. With both
            lambdas 0 there is no discriminator.
        weighting: gamma(t) of psi's loss; use the teacher's. auto picks the weight that belongs to
            the parameterisation.
        t_max: Largest step t that is drawn in training.
        student_warmup_fraction: Share of the run in which only psi trains, 100,000 images at most.
        adversarial_start_fraction: Share of the run after which theta's adversarial loss is added,
            200,000 images at most.
        ema_fraction: Half-life of theta's averaged weights as a share of the images seen, 500,000
            images at most; 0 turns averaging off.
        gradient_clip: Largest gradient norm of each network.
        seed: Seed of the training noise and of the noise for scoring.

    Raises:
        InputError: If a fraction is not in 0..1, or an adversarial loss has no discriminator.
    """

    precisions = ("32-true", "bf16-mixed")
    """Loss scaling in float16 forbids that this module replaces and clips gradients itself."""

    trained = "generator"
    counters = ("images_seen", "num_generator_steps", "num_nonfinite_gradients")

    def __init__(
        self,
        teacher: str,
        student_optimizer: OptimizerCallable = sida_adam,
        generator_optimizer: OptimizerCallable = sida_adam,
        *,
        t_init: int | None = None,
        scoring: Scoring | None = None,
        alpha: float = 1.0,
        lambda_student_adv: float = 0.01,
        lambda_generator_adv: float = 0.01,
        weighting: Weighting = "auto",
        t_max: int = 990,
        student_warmup_fraction: float = 0.05,
        adversarial_start_fraction: float = 0.1,
        ema_fraction: float = 0.05,
        gradient_clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        if not (0 <= student_warmup_fraction <= 1 and 0 <= adversarial_start_fraction <= 1):
            raise InputError(
                f"student_warmup_fraction and adversarial_start_fraction must lie in 0..1, but got "
                f"{student_warmup_fraction} and {adversarial_start_fraction}."
            )
        if lambda_generator_adv and not lambda_student_adv:
            raise InputError(
                f"lambda_generator_adv {lambda_generator_adv} needs a discriminator, but "
                f"lambda_student_adv is 0 and trains none. Set both to 0, or neither."
            )
        self.automatic_optimization = False
        self.teacher_path = teacher
        self.student_optimizer = student_optimizer
        self.generator_optimizer = generator_optimizer
        self.t_init = t_init
        self.scoring = scoring
        self.alpha = alpha
        self.lambda_student_adv = lambda_student_adv
        self.lambda_generator_adv = lambda_generator_adv
        self.weighting: Weighting = weighting
        self.t_max = t_max
        self.student_warmup_fraction = student_warmup_fraction
        self.adversarial_start_fraction = adversarial_start_fraction
        self.ema_fraction = ema_fraction
        self.gradient_clip = gradient_clip
        self.seed = seed
        self.num_generator_steps = 0
        self.num_nonfinite_gradients = 0

    # Algorithm 1 ---------------------------------------------------------------------------------

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> None:
        """Update psi, then theta, on one batch (one pass through the loop of Algorithm 1)."""
        x_0 = self.detector.normalizer(batch.features)
        draws = SampleDraws(
            seed=self.seed, epoch=self.current_epoch, index=batch.index, device=self.device
        )
        updates_generator = self.images_seen >= self.student_warmup_images
        student_optimizer, generator_optimizer = cast(list[LightningOptimizer], self.optimizers())

        # Generate x_g in one step from t_init (eq. 12).
        noise = draws.normal(tuple(x_0.shape[1:]))
        with torch.set_grad_enabled(updates_generator):
            x_g = self.reconstruct(self.generator, x_0, noise)

        # Update the student score psi with its discriminator (eqs. 13 and 17).
        losses = self.critic_losses(x_g.detach(), x_0, draws)
        self.update(self.critic, losses, student_optimizer)

        # Update the generator theta through the frozen scores phi and psi (eqs. 15 and 18).
        if updates_generator:
            with frozen(self.critic):
                losses = self.generator_losses(x_g, x_0, draws)
                self.update(self.generator, losses, generator_optimizer)
            self.num_generator_steps += 1

        # Move the averaged weights, with which the detector scores, towards theta.
        num_images = len(x_0) * self.trainer.world_size
        self.images_seen += num_images
        decay = ema_decay(num_images, self.images_seen, fraction=self.ema_fraction)
        ema_update(self.detector.denoiser.network, self.generator.network, decay)
        self.generated = x_0, noise, x_g.detach()  # for the diagnostics

    def critic_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        """Return psi's losses: denoise generated x_g (eq. 13), and tell real x_0 from x_g (eq. 17).

        Both are features (B, C, h, w); x_g is detached from the generator.
        """
        network, schedule = cast(Network, self.student.network), self.student.schedule
        t, noise = draws.steps(self.t_max), draws.normal(tuple(x_0.shape[1:]))
        x_t, y_t = schedule.add_noise(x_g, noise, t), schedule.add_noise(x_0, noise, t)
        output, encoding = network.forward_and_encode(x_t, t)
        weight = timestep_weight(
            self.weighting, schedule, t, parameterization=self.student.parameterization
        )
        score_losses = student_loss(self.student.interpret(output, x_t, t), x_g, weight)
        score_loss = score_losses.mean()
        encoder = list(network.encoder_parameters())
        logged = {"student_score_loss": score_loss}
        gradients = {"encoder_gradient_score": (score_loss, encoder)}
        total = score_loss
        if self.lambda_student_adv:
            fake = discriminator_logits(encoding)
            real = discriminator_logits(network.encode(y_t, t))
            adversarial = discriminator_loss(real, fake).mean()
            weighted = self.lambda_student_adv * adversarial
            total = score_loss + weighted
            logged |= {
                "discriminator_loss": adversarial,
                "discriminator_accuracy_real": (real > 0).float().mean(),
                "discriminator_accuracy_fake": (fake < 0).float().mean(),
            }
            gradients["encoder_gradient_discriminator"] = (weighted, encoder)
        return Losses(total, logged, gradients, {"student_error": (t, score_losses / weight)})

    def generator_losses(self, x_g: Tensor, x_0: Tensor, draws: SampleDraws) -> Losses:
        """Return theta's losses: distil the teacher (eq. 15), and fool the discriminator (eq. 18).

        Gradients reach the generated features x_g (B, C, h, w) through both frozen networks.
        """
        schedule = self.teacher.schedule
        t = draws.steps(self.t_max)
        x_t = schedule.add_noise(x_g, draws.normal(tuple(x_0.shape[1:])), t)
        phi = self.teacher(x_t, t)
        output, encoding = cast(Network, self.student.network).forward_and_encode(x_t, t)
        psi = self.student.interpret(output, x_t, t)
        weight = distillation_weight(x_g, phi)
        distillation = score_distillation_loss(
            x_g, phi, psi, weight=weight, alpha=self.alpha
        ).mean()
        logged = {"distillation_loss": distillation}
        gradients = {"output_gradient_distillation": (distillation, [x_g])}
        total = distillation
        if self.lambda_generator_adv and self.is_adversarial:
            adversarial = generator_adversarial_loss(discriminator_logits(encoding))
            weighted = self.lambda_generator_adv * (weight * adversarial).mean()
            total = distillation + weighted
            logged["generator_adversarial_loss"] = adversarial.mean()
            gradients["output_gradient_adversarial"] = (weighted, [x_g])
        gap = (phi.x_0 - psi.x_0).square().mean((1, 2, 3))
        return Losses(total, logged, gradients, {"score_gap": (t, gap)})

    def update(self, network: nn.Module, losses: Losses, optimizer: LightningOptimizer) -> None:
        """Take one optimiser step of a network on its losses."""
        name = "generator" if network is self.generator else "student"
        self.check_finite(losses.total, f"The loss of the {name}")
        self.losses = losses  # for the diagnostics, which look at the graph before `backward`
        for figure, value in losses.logged.items():
            self.log(f"train/{figure}", value, prog_bar=figure == "distillation_loss")
        optimizer.zero_grad()
        self.manual_backward(losses.total)
        self.num_nonfinite_gradients += zero_nonfinite_gradients(network)
        self.clip_gradients(optimizer.optimizer, self.gradient_clip, "norm")
        optimizer.step()

    def reconstruct(self, denoiser: Denoiser, x_0: Tensor, noise: Tensor) -> Tensor:
        """Reconstruct x_0 (B, C, h, w) in one step from t_init (eq. 12)."""
        t = torch.full((len(x_0),), self.detector.t_init, device=x_0.device)
        return denoiser(denoiser.schedule.add_noise(x_0, noise, t), t).x_0  # type: ignore[no-any-return]

    def build(self) -> None:
        """Start generator and student from the teacher: theta <- phi, psi <- phi."""
        teacher = Detector.load(self.teacher_path)
        self.teacher = teacher.denoiser.requires_grad_(False)
        self.generator = copy.deepcopy(self.teacher).requires_grad_(True)
        self.detector = Detector(
            extractor=self.data.extractor,
            normalizer=teacher.normalizer,
            denoiser=copy.deepcopy(self.teacher),
            scoring=self.scoring or teacher.scoring,
            kind="OmiAD",
            t_init=teacher.t_init if self.t_init is None else self.t_init,
            seed=self.seed,
        )
        self.teacher.schedule.check_step(self.t_max, "t_max")
        self.check_extractor(teacher.spec, "the teacher")
        self.build_critic()

    def build_critic(self) -> None:
        """Build what is trained beside the generator."""
        self.student = copy.deepcopy(self.teacher).requires_grad_(True)

    @property
    def critic(self) -> nn.Module:
        """What is trained beside the generator."""
        return self.student

    def setup(self, stage: str) -> None:
        """Let several processes look for the parameters that a step leaves out.

        Each step trains one of two networks, and DDP would wait for gradients of the other.
        """
        super().setup(stage)
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # Lightning offers this to whoever names the strategy only.
            strategy._ddp_kwargs["find_unused_parameters"] = True

    def on_fit_start(self) -> None:
        """Reject a teacher that is not an AMDM; a resumed run may name its own checkpoint."""
        super().on_fit_start()
        kind = read_checkpoint(self.teacher_path)[CHECKPOINT_KEY]["detector"]["kind"]
        if kind != "AMDM" and not self.is_restored:
            raise InputError(
                f"model.teacher '{self.teacher_path}' holds an {kind} model, but only an AMDM "
                f"checkpoint can be distilled. Give the checkpoint of stage 1."
            )
        self.detector.teacher_hash = weights_hash(self.teacher.network)

    def train(self, mode: bool = True) -> "OmiADModule":
        """Switch to training mode, except for the frozen teacher."""
        super().train(mode)
        if self.is_built:
            self.teacher.eval()
        return self

    def configure_optimizers(self) -> Sequence[Optimizer]:
        """Return psi's and theta's optimisers, in this order."""
        return (
            self.student_optimizer(self.critic.parameters()),
            self.generator_optimizer(self.generator.parameters()),
        )

    def configure_callbacks(self) -> list[Callback]:
        """Log diagnostics beside the losses."""
        return [DistillationDiagnostics()]

    @property
    def student_warmup_images(self) -> float:
        """Images before theta moves."""
        return min(100_000, self._share_of_run(self.student_warmup_fraction))

    @property
    def is_adversarial(self) -> bool:
        """Whether theta's adversarial loss has been added yet."""
        return self.images_seen >= min(200_000, self._share_of_run(self.adversarial_start_fraction))

    def _share_of_run(self, fraction: float) -> float:
        """Return a share of the images that this run will see, by epochs or by steps."""
        if not fraction:
            return 0
        trainer, batches = self.trainer, float("inf")
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            batches = trainer.max_epochs * trainer.num_training_batches
        if trainer.max_steps > 0:
            # A batch is one optimiser step in psi's warm-up and two afterwards.
            batches = min(batches, trainer.max_steps / (2 - self.student_warmup_fraction))
        # A data set smaller than a batch is one batch.
        images = min(self.data.batch_size * trainer.world_size, len(self.data.samples("train")))
        return fraction * batches * images
