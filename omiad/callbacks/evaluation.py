"""The figures of each category, as a table and as results.json, and the maps on demand."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from omiad.data import FeatureDataModule
from omiad.metrics import AnomalyMetrics, Results, results_table
from omiad.modules import DetectionModule
from omiad.protocols import find_protocol
from omiad.results import write_results
from omiad.types import ImageBatch, Prediction

logger = logging.getLogger(__name__)


class Evaluation(Callback):
    """Score the test split while it streams by, then print and write the results.

    Args:
        save_maps: Write each anomaly map as maps/<path of its image>.npy, float32.
    """

    results: Results

    def __init__(self, *, save_maps: bool = False) -> None:
        self.save_maps = save_maps

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty metrics for the categories of the test split."""
        data = cast(DetectionModule, pl_module).data
        self._categories = [sample.category for sample in data.samples("test")]
        self._names = image_names(data)
        self._metrics = AnomalyMetrics(sorted(set(self._categories)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Feed the metrics with one batch."""
        prediction = cast(Prediction, outputs)
        self._feed(prediction, batch)
        if self.save_maps:
            for index, pixels in zip(batch.index.tolist(), prediction.anomaly_map, strict=True):
                path = _folder(trainer) / "maps" / Path(self._names[index]).with_suffix(".npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, pixels.float().cpu().numpy())

    def _feed(self, prediction: Prediction, batch: ImageBatch) -> None:
        categories = [self._categories[i] for i in batch.index.tolist()]
        self._metrics.update(prediction, batch, categories)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute, print the table, write results.json into the run folder."""
        module = cast(DetectionModule, pl_module)

        def replay() -> None:
            logger.info("A figure's error may exceed the tolerance: scoring the images once more.")
            with torch.inference_mode():
                for on_cpu in cast(Iterable[ImageBatch], trainer.test_dataloaders):
                    batch = trainer.strategy.batch_to_device(on_cpu)
                    self._feed(module.test_step(batch, 0), batch)

        self.results = self._metrics.compute(replay=replay)
        if not trainer.is_global_zero:
            return
        detector = module.detector
        protocol = find_protocol(
            "uniad",
            image_size=detector.extractor.image_size,
            blur_sigma=detector.scoring.blur_sigma,
            pool_size=detector.scoring.pool_size,
        )
        Console().print(results_table(self.results, steps=protocol.sentence))
        path = _folder(trainer) / "results.json"
        write_results(
            path,
            self.results,
            self._names,
            protocol=protocol,
            dataset=module.data.dataset_name,
            device=module.device,
            checkpoint=str(trainer.ckpt_path) if trainer.ckpt_path else None,
            selected_on="last",
            model={
                "kind": module.kind,
                "t_init": detector.t_init,
                "num_steps": detector.num_steps,
                "sampler": detector.sampler,
                "eta": detector.eta,
                "num_noise_draws": detector.noise.shape[0],
                "backbone": detector.extractor.config["backbone"],
                "image_size": detector.extractor.image_size,
                "feature_size": detector.extractor.feature_size,
                "scoring": vars(detector.scoring),
            },
        )
        logger.info("results: %s", path)


def image_names(data: FeatureDataModule) -> list[str]:
    """Return the path of each test image below the root, with forward slashes."""
    return [sample.image.relative_to(data.root).as_posix() for sample in data.samples("test")]


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.log_dir or trainer.default_root_dir)
