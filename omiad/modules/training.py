"""What the training stages share: building networks, checks before a fit, and the checkpoint."""

import inspect
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, cast

import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from omiad.checkpoint import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_KEY,
    STATE_PREFIX,
    check_tensors,
    seal,
)
from omiad.data.layouts import few_photographs
from omiad.detector import FREE_ROWS
from omiad.diffusion import Denoiser
from omiad.errors import InputError
from omiad.files import expanded
from omiad.modules.detection import DetectionModule
from omiad.modules.resuming import STATES, check_states
from omiad.modules.storage import CheckpointFile
from omiad.names import one_line
from omiad.networks import Network, cost_summary
from omiad.schema import conform
from omiad.tiling import WHOLE
from omiad.version import __version__

logger = logging.getLogger(__name__)

RATIO_RANGE = (1.0, 20.0)
"""Noise-to-signal ratios at t_init between which one-step reconstruction works."""

PLATEAU_RATIO = 3.4
"""Ratio in the middle of the range where the measured AUROC hardly changes (t = 500, rms 1)."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions that a model is trained in; weights, noise levels and losses are float32 in each."""

PATHS = ("root", "cache_dir")
"""Settings of the data that a checkpoint holds as absolute paths."""


class TrainingModule(DetectionModule):
    """Train a detector, and write checkpoints that need no other file.

    Networks are built in `configure_model`, once the data module knows the features.

    Attributes:
        trained: Name of the attribute that holds the denoiser being trained, or None.
        counters: Names of the attributes that a resumed run must continue.
    """

    precisions: tuple[str, ...] = PRECISIONS
    trained: str | None = None
    counters: tuple[str, ...] = ("images_seen",)
    seed: int
    images_seen = 0
    _states: dict[str, Any]  # what resumes the trainer, until it is checked
    is_restored = False
    """Whether the weights came from a checkpoint of this class."""

    @abstractmethod
    def build(self) -> None:
        """Build the networks and the detector for the features of the data module."""

    @property
    def is_built(self) -> bool:
        """Whether the networks exist yet; they need the number of feature channels."""
        return "detector" in self._modules

    def setup(self, stage: str) -> None:
        """Reject a run that cannot work; warn of categories with few photographs."""
        self.trainer.strategy.checkpoint_io = CheckpointFile()
        if stage != "fit":
            return
        self.check_run(self.trainer)
        for category, count in few_photographs(self.data.samples("train")).items():
            logger.warning(
                "'%s' has %d training photographs. With so few, the scale of its anomaly maps and "
                "its memory are unreliable; take more photographs.",
                category,
                count,
            )

    def check_run(self, trainer: Trainer) -> None:
        """Reject options of a trainer with which this module cannot train, or trains nothing."""
        if trainer.precision not in self.precisions:
            raise InputError(
                f"{type(self).__name__} trains in {' or '.join(self.precisions)}, but got "
                f"--trainer.precision {trainer.precision}. Use bf16-mixed for speed."
            )
        for option in ("max_steps", "max_epochs", "limit_train_batches", "accumulate_grad_batches"):
            if getattr(trainer, option) == 0:
                raise InputError(f"With --trainer.{option} 0 nothing is trained. Raise it.")
        if (every := trainer.log_every_n_steps) < 1:  # type: ignore[attr-defined]
            raise InputError(
                f"--trainer.log_every_n_steps must be at least 1, but got {every}. A high number "
                f"leaves few rows in metrics.csv."
            )
        if trainer.max_steps < 0 and (trainer.max_epochs or -1) < 0:
            raise InputError(
                "The learning rate and stage 2 need the length of the run. Set --trainer.max_steps "
                "or --trainer.max_epochs; --trainer.max_time may end the run earlier."
            )
        if trainer.gradient_clip_val is not None:
            raise InputError(
                "The module clips its gradients by itself, so --trainer.gradient_clip_val would "
                "have no effect. Give --model.gradient_clip instead."
            )

    def configure_model(self) -> None:
        """Build the networks once, on the CPU, so that every device starts from equal weights."""
        if not self.is_built:
            with torch.device("cpu"):
                self.build()

    def on_fit_start(self) -> None:
        """Log the cost of the network and the noise-to-signal ratio; warn where it is unusable."""
        if self.is_restored:
            check_states(self._states, self.trainer)
            del self._states
        if self.trained is None:
            return
        denoiser = cast(Denoiser, getattr(self, self.trained))
        network, (channels, height, width) = denoiser.network, self.detector.noise.shape[2:]
        cost = cost_summary(cast(Network, network), (channels, height, width))
        logger.info("network: %s", cost)
        t_init, schedule = self.detector.t_init, denoiser.schedule
        rms = self.detector.normalizer.normalized_rms(self.data.statistics)
        ratio = schedule.noise_to_signal(t_init, rms)
        logger.info("features: rms %.3g; noise-to-signal at t_init %d: %.3g", rms, t_init, ratio)
        if not RATIO_RANGE[0] <= ratio <= RATIO_RANGE[1]:
            logger.warning(
                "The noise-to-signal ratio %.3g at t_init %d lies outside %g to %g: %s. For these "
                "features --model.t_init %d gives %.3g, the middle of the measured plateau.",
                ratio,
                t_init,
                *RATIO_RANGE,
                "defects survive the noise" if ratio < 1 else "the signal is buried",
                schedule.matching_step(PLATEAU_RATIO, rms),
                PLATEAU_RATIO,
            )

    def on_train_start(self) -> None:
        """Give the training batches their position in the epoch of a resumed run.

        `configure_optimizers` asks for the length of the run, for which Lightning makes the loader;
        it then forgets to restore the loader's position.
        """
        self.trainer.fit_loop._load_combined_loader_states()

    def on_train_end(self) -> None:
        """Calibrate the detector on one process, and let all processes have the result."""
        if self.trainer.is_global_zero:
            self.calibrate()
        detector = self.detector
        memory = detector.product_memory
        names = [] if memory is None else memory.names
        state = (detector.calibrated_for, names, detector.calibration)
        detector.calibrated_for, names, calibration = self.trainer.strategy.broadcast(state)
        if memory is not None:
            memory.names = names
        detector.load_state_dict({**detector.state_dict(), **calibration})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the detector without any other file."""
        detector = self.detector
        if self.trainer.state.fn == TrainerFn.FITTING and self.trainer.is_global_zero:
            self.calibrate(brief=True)
            # The state dict was taken before.
            for name, value in detector.calibration.items():
                checkpoint["state_dict"][STATE_PREFIX + name] = value.clone()
        hyperparameters, code = checkpoint.get("hyper_parameters", {}), []
        for name, value in list(hyperparameters.items()):
            if is_dataclass(value):
                hyperparameters[name] = vars(value)
            elif not is_plain(value):  # a factory given from Python, which no checkpoint carries
                del hyperparameters[name]
                default = inspect.signature(type(self)).parameters.get(name)
                if name != "network" and (default is None or value is not default.default):
                    code.append(name)  # the network is in the detector's spec
        data = checkpoint.get("datamodule_hyper_parameters", {})
        data |= {name: str(expanded(data[name]).resolve()) for name in PATHS if name in data}
        checkpoint[CHECKPOINT_KEY] = {
            "format": CHECKPOINT_FORMAT,
            "version": __version__,
            "module": type(self).__name__,
            "trained": f"{self.trained}." if self.trained else None,
            "categories": self.data.categories,
            "detector": detector.spec,
            "code": code,
            "progress": {name: getattr(self, name) for name in self.counters},
        }
        if self.trainer.is_global_zero:  # the process that writes
            seal(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Reject a checkpoint of another class, backbone or data set; restore the counters."""
        stored = checkpoint[CHECKPOINT_KEY]
        name = type(self).__name__
        if stored["module"] != name:
            raise InputError(
                f"{one_line(stored['module'])} wrote the checkpoint, but the configuration asks "
                f"for {name}. Leave --config out (the checkpoint knows its model) or give a "
                f"checkpoint of {name}."
            )
        spec = stored["detector"]
        self.check_extractor(spec, "the checkpoint")
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_categories(stored["categories"])
        given = checkpoint["state_dict"]
        check_tensors(given, self.state_dict(), "the checkpoint", free_rows=FREE_ROWS)
        self.detector.calibrated_for = spec["calibrated_for"]
        self.detector.teacher_hash = spec["teacher_hash"]
        conform(stored["progress"], dict[str, int], where="The checkpoint: progress")
        if stored["progress"].keys() != {*self.counters}:
            raise InputError(
                f"The checkpoint counts {', '.join(map(one_line, stored['progress']))} instead of "
                f"{', '.join(self.counters)}. Train the model again."
            )
        for counter, value in stored["progress"].items():
            setattr(self, counter, value)
        self.is_restored = True
        self._states = {name: checkpoint.get(name, []) for name in STATES}

    def check_categories(self, trained: Sequence[str]) -> None:
        """Reject data of other categories than those that the checkpoint was trained on."""
        if (mine := self.data.categories) != list(trained):
            more, fewer = sorted({*mine} - {*trained}), sorted({*trained} - {*mine})
            said = [f"'{one_line(name)}' was not in training" for name in more[:3]]
            said += [f"'{one_line(name)}' is missing" for name in fewer[:3]]
            raise InputError(
                f"The categories under --data.root differ from those of the checkpoint: "
                f"{', '.join(said)}. Resume with the same categories, or train a new model on all "
                f"of them without --ckpt_path."
            )

    def check_extractor(self, spec: Mapping[str, Any], owner: str) -> None:
        """Reject features that differ from those that `owner`, a model of that spec, learned."""
        whole = {"tiles": [*WHOLE]}  # which is left out
        mine = whole | self.detector.extractor.config
        for name, value in (whole | spec["extractor"]).items():
            if mine[name] != value and name != "precision":
                raise InputError(
                    f"--data.{name} is {mine[name]}, but {owner} was trained with {value}. Leave "
                    f"--data.{name} out, or train stage 1 again with it."
                )
        if self.detector.extractor.weights_hash != spec["extractor_weights_hash"]:
            raise InputError(
                f"The backbone's weights differ from the weights {owner} was trained with. Leave "
                f"--data.weights out (the checkpoint holds them), or train stage 1 again."
            )

    def check_finite(self, loss: Tensor, name: str) -> None:
        """Stop a run on all processes if the loss of any is NaN or infinite."""
        mean = cast(Tensor, self.trainer.strategy.reduce(loss.detach().clone(), reduce_op="mean"))
        if not torch.isfinite(mean):
            raise InputError(
                f"{name} became {mean.item()} at step {self.global_step}. Lower the learning rate "
                f"or set --trainer.precision 32-true."
            )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global random state on the CPU, from which torch initialises, and restore it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def is_plain(value: object) -> bool:
    """Return whether a value is data that any program may load, and no code."""
    if isinstance(value, (dict, list, tuple)):
        return all(map(is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (bool, int, float, str))
