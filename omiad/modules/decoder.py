"""A decoder that draws what the detector reconstructs; scoring never uses it."""

from functools import cached_property
from typing import cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (the field's spelling)

from omiad.data.loading import TrainingItems
from omiad.detector import Detector
from omiad.modules.amdm import paper_adam
from omiad.modules.training import TrainingModule, seeded
from omiad.networks import FeatureDecoder
from omiad.types import FeatureBatch


class DecoderModule(TrainingModule):
    """Train a decoder from a detector's features to pictures (the paper's Figs. 2 and 9 to 13).

    The detector is frozen, and the checkpoint holds it unchanged beside the decoder: a test of the
    checkpoint gives the same scores, and its panels show "our reconstruction".

    Args:
        detector: Checkpoint of a model of stage 1 or 2.
        optimizer: Optimiser of the decoder.
        width: Channels of the decoder at the grid of the features.
        seed: Seed of the decoder's initial weights.
    """

    def __init__(
        self,
        detector: str,
        optimizer: OptimizerCallable = paper_adam,
        *,
        width: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.detector_path = detector
        self.optimizer = optimizer
        self.width = width
        self.seed = seed

    def build(self) -> None:
        """Load the detector, and build a decoder for its features."""
        self.detector = Detector.load(self.detector_path).requires_grad_(False)
        spec, self.detector.extractor = self.detector.spec, self.data.extractor
        self.check_extractor(spec, "the detector")
        with seeded(self.seed):
            self.detector.add_decoder(self.width)

    @property
    def decoder(self) -> FeatureDecoder:
        """The decoder, which is a part of the detector."""
        return cast(FeatureDecoder, self.detector.decoder)

    @cached_property
    def items(self) -> TrainingItems:
        """The tiles of the training images."""
        return self.data.training_items

    def training_step(self, batch: FeatureBatch, batch_idx: int) -> Tensor:
        """Draw normal images, half of them from features and half from reconstructions."""
        images = torch.stack([self.items.pixels(i) for i in batch.index.tolist()])
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

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser with a cosine decay to zero."""
        optimizer = self.optimizer(self.decoder.parameters())
        total = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def psnr(mean_squared_error: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio in dB of an error in units of the full range."""
    return -10 * mean_squared_error.clamp(min=1e-10).log10()
