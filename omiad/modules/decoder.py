"""A decoder that draws what the detector reconstructs; it takes no part in scoring."""

from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (the field's spelling)
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from omiad.checkpoint import CHECKPOINT_KEY, read_checkpoint
from omiad.data.images import read_image
from omiad.detector import Detector
from omiad.features import FeatureCache, StreamedFeatures
from omiad.modules.detection import DetectionModule
from omiad.networks import FeatureDecoder
from omiad.scoring import Scoring
from omiad.types import FeatureBatch


def adam(parameters: ParamsT) -> Optimizer:
    """Return Adam at a rate of 1e-3."""
    return torch.optim.Adam(parameters, lr=1e-3)


class DecoderModule(DetectionModule):
    """Train a picture of a detector's features on normal images (the paper's Figs. 2 and 9 to 13).

    The detector is frozen and goes into the checkpoint as it is: tested with this checkpoint it
    scores to the same numbers, and its panels show "our reconstruction".

    Args:
        detector: Checkpoint of the model to look into, of stage 1 or 2.
        optimizer: Optimiser of the decoder.
        width: Channels of the decoder at the features' grid.
        scoring: How the residual becomes an anomaly map and an image score; the detector's if not
            given.
        seed: Seed of the decoder's initial weights.
    """

    kind = "image decoder"

    def __init__(
        self,
        detector: str,
        optimizer: OptimizerCallable = adam,
        *,
        width: int = 128,
        scoring: Scoring | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.detector_path = detector
        self.optimizer = optimizer
        self.width = width
        self.scoring = scoring
        self.seed = seed
        self.images_seen = 0
        self._scores_as = self.kind

    @property
    def scores_as(self) -> str:
        """Kind of the model looked into."""
        return self._scores_as

    def setup(self, stage: str) -> None:
        """Load the detector and build the decoder for its features."""
        if not self.is_built:
            self._build()
        if stage == "fit":
            self.check_precision()

    def _build(self) -> None:
        stored = read_checkpoint(self.detector_path)[CHECKPOINT_KEY]
        self._scores_as = stored["progress"].get("scores_as", stored["kind"])
        self.feature_rms = stored["feature_rms"]
        self.noise_to_signal = stored["noise_to_signal"]
        detector = Detector.load(self.detector_path).requires_grad_(False)
        detector.extractor = self.data.extractor
        detector.scoring = self.scoring or detector.scoring
        self.detector = detector
        self.check_extractor(stored["detector"], "the detector")
        extractor = detector.extractor
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # noqa: TID251 (torch initialises from its global state)
            self.decoder = FeatureDecoder(
                extractor.num_channels,
                feature_size=extractor.feature_size,
                image_size=extractor.image_size,
                width=self.width,
            )

    def train(self, mode: bool = True) -> "DecoderModule":
        """Switch to training mode, except for the frozen detector."""
        super().train(mode)
        if self.is_built:
            self.detector.eval()
        return self

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> Tensor:
        """Draw a batch of normal images, one half from features, the other from reconstructions."""
        samples, size = self.data.samples("train"), self.detector.extractor.image_size
        images = torch.stack([read_image(samples[i].image, size) for i in batch.index.tolist()])
        half = len(images) // 2
        normalized = self.detector.normalizer(batch.features[:half])
        reconstructed = self.detector.reconstruct(batch.features[half:])
        drawn = self.decoder(torch.cat([normalized, reconstructed]))
        loss = F.mse_loss(drawn, images.to(drawn.device) / 255)
        self.check_finite(loss, "The training loss")
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/psnr", psnr(loss.detach()))
        self.images_seen += len(images) * self.trainer.world_size
        return loss

    @torch.no_grad()
    def picture(self, features: Tensor) -> Tensor:
        """Draw what raw features (B, C, h, w) are reconstructed to: (B, 3, S, S), uint8."""
        drawn: Tensor = self.decoder(self.detector.reconstruct(features))
        return (drawn * 255).round().to(torch.uint8)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam along a cosine to zero."""
        optimizer = self.optimizer(self.decoder.parameters())
        total = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @property
    def trained(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def on_test_start(self) -> None:
        """Leave the detector's weights as they are: nothing here was averaged."""

    def calibrate(self, features: FeatureCache | StreamedFeatures) -> None:
        """Leave the detector as it is."""

    def progress(self) -> dict[str, Any]:
        """Counters that a resumed run must continue, and whose scores a test's are."""
        return {"images_seen": self.images_seen, "scores_as": self.scores_as}

    def load_progress(self, progress: dict[str, Any]) -> None:
        """Restore `progress`."""
        self.images_seen = progress["images_seen"]
        self._scores_as = progress.get("scores_as", self.kind)


def psnr(mean_squared_error: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of an error in units of the full range."""
    return -10 * mean_squared_error.clamp(min=1e-10).log10()
