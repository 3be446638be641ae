"""The seven metrics per category, as a table and as results.json."""

import json
import logging
import platform
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from omiad.metrics import AnomalyMetrics, Results, results_table
from omiad.modules import DetectionModule
from omiad.scoring import PROTOCOL
from omiad.types import ImageBatch, Prediction
from omiad.version import __version__

logger = logging.getLogger(__name__)


class Evaluation(Callback):
    """Score the test split while it streams by, then print and write the results."""

    results: Results

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty metrics for the categories of the test split."""
        data = cast(DetectionModule, pl_module).data
        self._names = [sample.category for sample in data.samples("test")]
        self._metrics = AnomalyMetrics(sorted(set(self._names)))

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
        categories = [self._names[i] for i in batch.index.tolist()]
        self._metrics.update(cast(Prediction, outputs), batch, categories)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute, print the table, write results.json into the run folder."""
        self.results = self._metrics.compute()
        if not trainer.is_global_zero:
            return
        Console().print(results_table(self.results))
        module = cast(DetectionModule, pl_module)
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        path = write_results(folder, self.results, trainer=trainer, module=module)
        logger.info("results: %s", path)


def write_results(
    folder: Path, results: Results, *, trainer: Trainer, module: DetectionModule
) -> Path:
    """Write results.json: figures as fractions of 1, null where one is undefined."""
    detector = module.detector
    record = {
        "dataset": module.data.dataset_name,
        "protocol": PROTOCOL,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else None,
        "selected_on": "last",
        "categories": results.categories,
        "mean": results.mean,
        "n": results.n,
        "notes": results.notes,
        "model": {
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
        "hardware": _hardware(module.device),
        "versions": {"omiad": __version__, "torch": torch.__version__},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
