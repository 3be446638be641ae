"""Pictures of what the model sees, in the manner of the paper's Fig. 2."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from omiad.data.images import read_image
from omiad.modules import DetectionModule
from omiad.report import PanelRow, panel
from omiad.types import ImageBatch, Prediction, Sample

logger = logging.getLogger(__name__)


class Panels(Callback):
    """Write one picture for each category: normal reference, input, ground truth, anomaly map.

    With a decoder's checkpoint also what the input is reconstructed to.

    All maps are drawn on one scale, which comes from normal training images, so that normal
    images stay dark.

    Args:
        num_per_category: Test images in each picture, spread over its defects; 0 writes none.
    """

    def __init__(self, num_per_category: int = 6) -> None:
        self.num_per_category = num_per_category

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Pick the images to show."""
        # Asked of all processes, for Lightning has them agree on it.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir) / "panels"
        samples = cast(DetectionModule, pl_module).data.samples("test")
        self._picked = pick(samples, self.num_per_category)
        self._rows: dict[str, list[PanelRow]] = defaultdict(list)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the maps of picked images."""
        data = cast(DetectionModule, pl_module).data
        prediction = cast(Prediction, outputs)
        picked = [i for i, index in enumerate(batch.index.tolist()) if index in self._picked]
        drawn = cast(DetectionModule, pl_module).picture(batch.images[picked]) if picked else None
        for number, row in enumerate(picked):
            index = int(batch.index[row])
            sample = data.samples("test")[index]
            score = float(prediction.score[row])
            self._rows[sample.category].append(
                PanelRow(
                    reference=_pixels(data.reference(sample.category), data.image_size),
                    image=_pixels(sample.image, data.image_size),
                    mask=batch.masks[row].cpu().numpy() if batch.has_mask[row] else None,
                    anomaly_map=prediction.anomaly_map[row].cpu().numpy(),
                    label=sample.defect,
                    score=score,
                    reconstruction=None if drawn is None else _channels_last(drawn[number]),
                )
            )

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the pictures into the run folder."""
        if not self._rows:
            return
        low, high = cast(DetectionModule, pl_module).detector.map_range.tolist()
        self._folder.mkdir(parents=True, exist_ok=True)
        for category, rows in self._rows.items():
            panel(rows, (low, high)).save(self._folder / f"{category}.png")
        logger.info("panels: %s", self._folder)


def pick(samples: Sequence[Sample], num_per_category: int) -> set[int]:
    """Choose images for each category, taking its defects (and normal) in turn; indices."""
    groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, sample in enumerate(samples):
        groups[sample.category][sample.defect].append(index)
    picked: set[int] = set()
    for defects in groups.values():
        longest = max(len(indices) for indices in defects.values())
        in_turn = [
            indices[i] for i in range(longest) for indices in defects.values() if i < len(indices)
        ]
        picked.update(in_turn[:num_per_category])
    return picked


def _pixels(path: Path, size: int) -> Any:
    return _channels_last(read_image(path, size))


def _channels_last(image: Tensor) -> Any:
    return image.permute(1, 2, 0).cpu().numpy()
