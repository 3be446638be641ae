"""What both training stages share: the detector they train, testing it, and its checkpoint."""

import logging
from abc import abstractmethod
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from omiad.checkpoint import CHECKPOINT_KEY, STATE_PREFIX
from omiad.data import FeatureDataModule
from omiad.detector import AUTOCAST_DTYPES, Detector
from omiad.errors import InputError
from omiad.features import FeatureCache, StreamedFeatures
from omiad.types import Prediction, ScoringBatch
from omiad.version import __version__

logger = logging.getLogger(__name__)

RATIO_RANGE = (1.0, 20.0)
"""Noise-to-signal ratios at t_init between which one-step reconstruction works."""

PLATEAU_RATIO = 3.4
"""Ratio in the middle of the plateau measured on standardised features (t = 500, rms 1)."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions a model is trained in: weights, noise levels and losses are float32 in each."""


class DetectionModule(LightningModule):
    """A LightningModule that trains a `Detector` and whose checkpoints stand alone."""

    detector: Detector
    kind: str
    precisions: tuple[str, ...] = PRECISIONS
    seed: int
    ema_fraction: float
    _is_used_anew: bool = False
    is_restored: bool = False
    """Whether the weights came from a checkpoint of this kind of model."""

    @property
    def scores_as(self) -> str:
        """Kind of model that the scores are of."""
        return self.kind

    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet; they need the number of feature channels."""
        return "detector" in self._modules

    @property
    def data(self) -> FeatureDataModule:
        """The data module of the attached trainer.

        Raises:
            InputError: If the trainer runs without a FeatureDataModule.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FeatureDataModule):
            raise InputError(
                f"{type(self).__name__} needs a FeatureDataModule; pass it as "
                f"trainer.fit(model, datamodule=...)."
            )
        return data

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network whose average the detector uses."""

    def check_precision(self) -> None:
        """Refuse a precision in which small steps of the weights, or gradients, would be lost.

        Raises:
            InputError: If the trainer's precision is not one of this stage's.
        """
        if self.trainer.precision not in self.precisions:
            raise InputError(
                f"{self.kind} is trained in {' or '.join(self.precisions)}, but got "
                f"--trainer.precision {self.trainer.precision}. Take bf16-mixed for speed."
            )

    def check_t_init(self, rms: float) -> None:
        """Report the noise-to-signal ratio at t_init and warn where no network can reconstruct.

        Args:
            rms: Root mean square of the features as the network sees them.
        """
        detector, schedule = self.detector, self.detector.denoiser.schedule
        ratio = schedule.noise_to_signal(detector.t_init, rms)
        self.feature_rms, self.noise_to_signal = rms, ratio
        logger.info(
            "features: rms %.3g; noise-to-signal at t_init %d: %.3g", rms, detector.t_init, ratio
        )
        if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
            logger.warning(
                "The noise-to-signal ratio %.3g at t_init %d lies outside %g to %g: %s. For these "
                "features --model.t_init %d gives %.3g, the middle of the measured plateau.",
                ratio,
                detector.t_init,
                *RATIO_RANGE,
                "defects survive the noise" if ratio < 1 else "the signal is buried",
                schedule.matching_step(PLATEAU_RATIO, rms),
                PLATEAU_RATIO,
            )

    def on_test_start(self) -> None:
        """Score with the weights as trained if their average is turned off.

        A memory holds what the model leaves of normal images; where the model or the way it is
        used differs from the checkpoint's, it is filled anew from the training images.
        """
        if self.ema_fraction == 0:
            self.detector.denoiser.network.load_state_dict(self.trained.state_dict())
        is_stale = self.ema_fraction == 0 or self._is_used_anew or self.detector.memory.is_empty
        if self.detector.scoring.memory_size and is_stale:
            logger.info("memory: filled anew from the training images, for these settings")
            self.calibrate(self.data.features("train"))

    def test_step(  # type: ignore[override] # the callbacks take the prediction as it is
        self, batch: ScoringBatch, batch_idx: int
    ) -> Prediction:
        """Score a batch by its features; the evaluation callback does the rest."""
        return self.detector.score_features(batch.features)

    def picture(self, features: Tensor) -> Tensor | None:
        """Draw what features are reconstructed to, or None where nothing can draw it."""
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to rebuild the detector without any other file."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.calibrate(self.data.train_features)
            # The state dict was taken before.
            for name, value in self.detector.calibration.items():
                checkpoint["state_dict"][STATE_PREFIX + name] = value.clone()
        # Factories given from Python are code, which no checkpoint carries.
        hyperparameters = checkpoint.get("hyper_parameters", {})
        for name in [n for n, value in hyperparameters.items() if not is_plain(value)]:
            del hyperparameters[name]
        checkpoint[CHECKPOINT_KEY] = {
            "version": __version__,
            "kind": self.kind,
            "detector": self.detector.spec,
            "categories": self.data.categories,
            "feature_rms": self.feature_rms,
            "noise_to_signal": self.noise_to_signal,
            "selected_on": "last",
            "progress": self.progress(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another kind or backbone; restore the counters.

        Raises:
            InputError: If the checkpoint does not belong to this model.
        """
        stored = checkpoint.get(CHECKPOINT_KEY)
        if stored is None:
            raise InputError(
                f"The checkpoint was not written by omiad, so {self.kind} cannot be restored from "
                f"it. Give a .ckpt file that `omiad fit` wrote."
            )
        if stored["kind"] != self.kind:
            raise InputError(
                f"The checkpoint holds an {stored['kind']} model, but the configuration asks for "
                f"{self.kind}. Leave --config out (the checkpoint knows its model) or give an "
                f"{self.kind} checkpoint."
            )
        self.check_extractor(stored["detector"], "the checkpoint")
        if self.trainer.state.fn != TrainerFn.FITTING:
            # A score is the checkpoint's, whatever precision the tester runs under.
            precision = stored["detector"]["precision"]
            self.detector.autocast_dtype = AUTOCAST_DTYPES[precision]
            self._is_used_anew = self.detector.is_used_unlike(stored["detector"])
            self.detector.extractor.precision = precision
        self.feature_rms = stored["feature_rms"]
        self.noise_to_signal = stored["noise_to_signal"]
        self.load_progress(stored["progress"])
        self.is_restored = True

    def check_extractor(self, spec: dict[str, Any], owner: str) -> None:
        """Refuse features that differ from the ones a model was trained on.

        Args:
            spec: `Detector.spec` of the model.
            owner: What the sentence calls it.

        Raises:
            InputError: If backbone, its weights or the feature grid differ.
        """
        mine = self.detector.extractor.config
        for name, value in spec["extractor"].items():
            if name != "precision" and mine[name] != value:
                raise InputError(
                    f"--data.{name} is {mine[name]}, but {owner} was trained with {value}. Leave "
                    f"--data.{name} out, or train stage 1 again with it."
                )
        if self.detector.extractor.weights_hash != spec["extractor_weights_hash"]:
            raise InputError(
                f"The backbone's weights differ from the ones {owner} was trained with. Leave "
                f"--data.weights out (they are in the checkpoint), or train stage 1 again."
            )

    def check_finite(self, loss: Tensor, name: str) -> None:
        """Stop a run whose loss is no number.

        Raises:
            InputError: If the loss is NaN or infinite.
        """
        if not torch.isfinite(loss):
            raise InputError(
                f"{name} became {loss.item()} at step {self.global_step}. Lower the learning rate "
                f"or set --trainer.precision 32-true; the last checkpoint written is intact."
            )

    @abstractmethod
    def progress(self) -> dict[str, int]:
        """Counters that a resumed run must continue."""

    @abstractmethod
    def load_progress(self, progress: dict[str, int]) -> None:
        """Restore `progress`."""

    def calibrate(self, features: FeatureCache | StreamedFeatures) -> None:
        """Let the detector learn from training features, by their order, how to score."""
        images: dict[str, list[int]] = {name: [] for name in self.data.categories}
        for index, sample in enumerate(self.data.samples("train")):
            images[sample.category].append(index)
        count = self.detector.num_calibration_images
        self.detector.calibrate(
            torch.stack([features[i] for i in _spread(mine, count)]).to(self.device)
            for mine in images.values()
        )


def _spread(indices: list[int], most: int) -> list[int]:
    """Pick some, evenly spaced."""
    count = min(len(indices), most)
    return [indices[i * len(indices) // count] for i in range(count)]


def is_plain(value: object) -> bool:
    """Return whether a value is data that any program may load, and no code."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
