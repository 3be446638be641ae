"""Measure a model while it is tested."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, LightningModule, Trainer

from omiad.callbacks.latency import latency
from omiad.detector import Detector
from omiad.devices import idle_time
from omiad.errors import InputError
from omiad.evaluation.evaluator import Evaluator
from omiad.evaluation.maps import map_stems, write_maps, write_scores
from omiad.evaluation.options import EvaluationOptions
from omiad.features import weights_hash
from omiad.modules import DetectionModule
from omiad.report import decisions, read_gallery, write_panels
from omiad.results import gallery_path
from omiad.types import Prediction, ScoringBatch


@dataclass(kw_only=True, eq=False)
class Evaluation(EvaluationOptions, Callback):
    """Measure the test split while it streams by, then print and write the results.

    Attributes:
        save_maps: Write each anomaly map as maps/<path of its image>.npy, float32, and the image
            scores as scores.csv, for `omiad evaluate`.
        num_in_panel: Images in the picture of each category in panels/; 0 writes none.
    """

    save_maps: bool = False
    num_in_panel: int = 6

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the test masks as the protocol does, if it gives a model such images."""
        if stage != "test":
            return
        data = cast(DetectionModule, pl_module).data
        size = max(data.tiling.canvas)
        protocol = self.build_protocol(image_size=size, pool_size=1)
        if protocol.crop is not None or protocol.input_size != size:
            side, crop = protocol.input_size, protocol.crop
            cut = f"{crop} x {crop} pixels cut from " if crop else ""
            raise InputError(
                f"Protocol {protocol.name} gives a model {cut}{side} x {side} pixels, but this "
                f"model takes whole images of {size} x {size}. Add --image_size {size} to compare "
                f"at that size."
            )
        data.prepare_mask = protocol.label_mask

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start without any prediction, unless both model and protocol would blur the maps."""
        module = cast(DetectionModule, pl_module)
        # Every process must ask for the folder, since Lightning broadcasts it.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._steps: list[tuple[float, int]] = []  # seconds and images of each batch
        scoring, tiling = module.detector.scoring, module.data.tiling
        size = max(tiling.canvas)
        protocol = self.build_protocol(image_size=size, pool_size=scoring.pool_size)
        if tiling.count > 1:
            blended = f"{protocol.upsampling}; {tiling.tiles[0]} x {tiling.tiles[1]} tiles blended"
            protocol = dataclasses.replace(protocol, upsampling=blended)
        if scoring.blur_sigma > 0:
            if protocol.blur_sigma > 0:
                raise InputError(
                    f"The model blurs its maps (sigma {scoring.blur_sigma:g}), and protocol "
                    f"{protocol.name} would blur them again. Give --model.scoring.blur_sigma 0 or "
                    f"--blur_sigma 0."
                )
            order = ", after the image score" if self.takes_model_window else ""
            blur = f"{protocol.upsampling}; Gaussian, sigma {scoring.blur_sigma:g}{order}"
            protocol = dataclasses.replace(protocol, upsampling=blur)
        samples, root = module.data.samples("test"), module.data.root
        self._evaluator = Evaluator(samples, root, protocol, self, source=module.ckpt_path)
        self._map_files = [f"{stem}.npy" for stem in map_stems(self._evaluator.names)]

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Start the clock."""
        self._started = idle_time(pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ScoringBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure one batch."""
        seconds = idle_time(pl_module.device) - self._started
        self._steps.append((seconds, len(batch.labels.index)))
        module, prediction = cast(DetectionModule, pl_module), cast(Prediction, outputs)
        self._add(module, prediction, batch)
        if self.save_maps and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            files = [self._map_files[i] for i in batch.labels.index.tolist()]
            maps = self._evaluator.protocol.as_given(prediction.anomaly_map)
            write_maps(self._folder / "maps", files, maps)

    def _add(self, module: DetectionModule, prediction: Prediction, batch: ScoringBatch) -> None:
        self._evaluator.add(
            prediction.anomaly_map,
            batch.labels,
            score=prediction.score.float() if self._takes_model_score else None,
            picture=lambda rows: module.detector.picture(batch.features[rows]),
        )

    @property
    def _takes_model_score(self) -> bool:
        # The model takes its image score from the map before its own blur.
        return self.takes_model_window and self._evaluator.protocol.blur_sigma == 0

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the figures, print the table, and write the files of the run folder."""
        module = cast(DetectionModule, pl_module)

        def replay() -> None:
            batches = cast(Iterable[Any], trainer.test_dataloaders)
            with torch.inference_mode():
                for on_cpu in islice(batches, int(trainer.num_test_batches[0])):
                    batch = trainer.strategy.batch_to_device(on_cpu)
                    self._add(module, module.test_step(batch, 0), batch)

        self._evaluator.compute(replay=replay)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path, data = self._folder / "results.json", module.data
        train, (low, high) = data.samples("train"), module.detector.map_range.tolist()
        references = {sample.category: sample.name(data.root) for sample in reversed(train)}
        self._evaluator.write_gallery(path, scale=(low, high), references=references)
        if self.num_kept and self.num_in_panel:
            write_panels(
                path.parent / "panels",
                read_gallery(gallery_path(path)),
                root=data.root,
                scale=(low, high),
                image_size=data.image_size,
                num_images=self.num_in_panel,
                white_level=module.detector.extractor.white_level,
            )
        if self.save_maps:
            scores = self._folder / "scores.csv"
            write_scores(scores, self._evaluator.names, self._evaluator.results)
        about = {}
        if self._takes_model_score and module.detector.products.counts.any():
            detector, images = module.detector, self._evaluator.results.images
            about = {"decisions": decisions(detector.products, images, detector.false_alarms)}
        self._evaluator.write(  # last: a folder with results.json is whole
            path,
            scale=(low, high),
            dataset=data.dataset_name,
            device=module.device,
            checkpoint=module.ckpt_path,
            selected_on="last",
            seed=module.detector.seed,
            weights=_weights(module.detector),
            latency=latency(self._steps),
            model=_settings(module.detector),
            **about,
        )


def _weights(detector: Detector) -> dict[str, str]:
    """Return hashes by which a report finds the teacher of a student."""
    hashes = {"model": weights_hash(detector.denoiser.network)}
    return hashes | ({"teacher": detector.teacher_hash} if detector.teacher_hash else {})


def _settings(detector: Detector) -> dict[str, Any]:
    known = {**detector.extractor.config, **detector.spec}
    names = ("kind", "t_init", "num_steps", "eta", "num_noise_draws", "scoring")
    read = ("backbone", "image_size", "feature_size", "white_level")
    tiles = {"tiles"} & known.keys()  # a single tile is not named
    return {name: known[name] for name in (*names, *read, *tiles)}
