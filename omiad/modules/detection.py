"""Testing: a LightningModule that holds a detector and scores the test split with it."""

import logging
from typing import Any, Literal

from lightning import LightningModule

from omiad.calibration import calibrate, is_calibrated
from omiad.checkpoint import CHECKPOINT_KEY, check_tensors, read_checkpoint
from omiad.data import FeatureDataModule
from omiad.detector import Detector
from omiad.errors import InputError, NotFiniteError
from omiad.modules.storage import CheckpointFile
from omiad.names import one_line
from omiad.scoring import Scoring
from omiad.types import Prediction, ScoringBatch

logger = logging.getLogger(__name__)


class DetectionModule(LightningModule):
    """Score the test split of a data module with a detector.

    Args:
        detector: The detector; the training stages build their own later.
        ckpt_path: The checkpoint that the detector comes from, for the record of the results.
    """

    detector: Detector

    def __init__(self, detector: Detector | None = None, *, ckpt_path: str | None = None) -> None:
        super().__init__()
        self.ckpt_path = ckpt_path
        if detector is not None:
            self.detector = detector

    @classmethod
    def load(
        cls,
        ckpt_path: str,
        *,
        scoring: Scoring | None = None,
        t_init: int | None = None,
        num_steps: int | None = None,
        eta: float | None = None,
        num_noise_draws: int | None = None,
        weights: Literal["averaged", "raw"] = "averaged",
    ) -> "DetectionModule":
        """Load the detector of a checkpoint; by default every setting is the checkpoint's.

        Args:
            ckpt_path: A .ckpt file that `omiad fit` wrote.
            scoring: How a residual becomes an anomaly map and an image score.
            t_init: Step that features are noised to.
            num_steps: DDIM steps from t_init; 1 reconstructs in one step.
            eta: Share of fresh noise in each DDIM step; with eta 1 and num_steps = t_init the
                sampler is the ancestral sampler of eqs. 3 and 4.
            num_noise_draws: Noise maps whose anomaly maps are averaged.
            weights: Score with the averaged weights of the trained network or with the raw ones.
        """
        changes: dict[str, Any] = {
            "scoring": vars(scoring) if scoring else None,
            "t_init": t_init,
            "num_steps": num_steps,
            "eta": eta,
            "num_noise_draws": num_noise_draws,
        }
        changes = {name: value for name, value in changes.items() if value is not None}
        detector = Detector.load(ckpt_path, **changes)
        if weights == "raw":
            checkpoint = read_checkpoint(ckpt_path)
            prefix = checkpoint[CHECKPOINT_KEY]["trained"]
            if prefix is None:
                raise InputError(
                    f"'{ckpt_path}' holds averaged weights only. Leave --model.weights raw out, or "
                    f"test the checkpoint of stage 1 or 2."
                )
            state = checkpoint["state_dict"].items()
            raw = {k.removeprefix(prefix): v for k, v in state if k.startswith(prefix)}
            check_tensors(raw, detector.denoiser.state_dict(), f"'{one_line(str(ckpt_path))}'")
            detector.denoiser.load_state_dict(raw)
        return cls(detector, ckpt_path=str(ckpt_path))

    @property
    def data(self) -> FeatureDataModule:
        """The data module of the attached trainer."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FeatureDataModule):
            raise InputError(
                f"{type(self).__name__} needs a FeatureDataModule; pass one as "
                f"trainer.fit(model, datamodule=...)."
            )
        return data

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse: Lightning would import and call what the checkpoint names."""
        raise InputError(
            f"{cls.__name__}.load_from_checkpoint would run code that a checkpoint names. Use "
            f"Detector.load(path) to score, or trainer.fit(..., ckpt_path=path) to resume."
        )

    def setup(self, stage: str) -> None:
        """Let the data module compute features by the extractor of the detector."""
        self.trainer.strategy.checkpoint_io = CheckpointFile()
        asked = {**self.data.hparams, "tiles": [*self.data.tiling.tiles]}
        extractor = self.detector.extractor
        for name, value in {"tiles": [*extractor.tiling.tiles], **extractor.config}.items():
            if asked.get(name) not in (None, value):
                raise InputError(
                    f"--data.{name} is {asked[name]}, but the model was trained with {value}. Give "
                    f"FeatureDataModule {value}; `omiad test` does so without --data.{name}."
                )
        self.data.use_extractor(extractor)

    def on_test_start(self) -> None:
        """Calibrate the detector again if its settings changed since the last calibration."""
        self.detector.eval()
        self._warn_of_untrained_categories()
        if not is_calibrated(self.detector):
            logger.info("calibration: memory and map scale are computed for these settings")
            self.calibrate()

    def calibrate(self, *, brief: bool = False) -> None:
        """Calibrate on the training images, on a few if brief, unless that is already done."""
        if is_calibrated(self.detector, brief=brief):
            return
        if not self.data.samples("train"):
            raise InputError(
                f"These settings differ from the checkpoint's, so the detector is calibrated on "
                f"normal images, but '{self.data.root}' has no training images. Leave the settings "
                f"as they are, or put normal images in <category>/train/good."
            )
        if missing := sorted({*self.detector.added.names} - {*self.data.categories}):
            raise InputError(
                f"These settings differ from the checkpoint's, so the detector is calibrated on "
                f"normal images, but '{self.data.root}' has none of '{one_line(missing[0])}', "
                f"which `omiad extend` added. Leave the settings as they are, or give all products."
            )
        positions: dict[str, list[int]] = {name: [] for name in self.data.categories}
        for index, sample in enumerate(self.data.samples("train")):
            positions[sample.category].append(index)
        calibrate(self.detector, self.data.features("train"), positions, brief=brief)

    def test_step(  # type: ignore[override] # the callbacks take the prediction as it is
        self, batch: ScoringBatch, batch_idx: int
    ) -> Prediction:
        """Score a batch by its features; the evaluation callback does the rest.

        Raises:
            InputError: If a score is not finite; the message names the photograph.
        """
        try:
            return self.detector.score_features(batch.features)
        except NotFiniteError as error:
            image = self.data.samples("test")[int(batch.labels.index[error.index])].image
            raise InputError(f"'{one_line(str(image))}': {error}") from error

    def _warn_of_untrained_categories(self) -> None:
        if self.ckpt_path is None:
            return
        trained = read_checkpoint(self.ckpt_path)[CHECKPOINT_KEY]["categories"]
        tested = {sample.category for sample in self.data.samples("test")}
        for category in sorted(tested - {*trained}):
            logger.warning(
                "'%s' was not in training: the model knows %s. Its figures mean little; train a "
                "model with it.",
                one_line(category),
                ", ".join(map(one_line, trained)),
            )
