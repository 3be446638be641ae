"""The figures of each category, as a table and as results.json, pictures, and maps on demand."""

import csv
import dataclasses
import logging
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from rich.console import Console

from omiad.callbacks.latency import StepClock
from omiad.detector import Detector
from omiad.errors import InputError
from omiad.features import weights_hash
from omiad.metrics import AnomalyMetrics, Results, results_table
from omiad.metrics.pixels import TOLERANCE
from omiad.modules import DetectionModule
from omiad.protocols import Protocol, find_protocol
from omiad.report import NUM_KEPT, KeptImages, gallery_path, write_gallery, write_panels
from omiad.results import write_results
from omiad.types import Prediction, ScoringBatch

logger = logging.getLogger(__name__)


class Evaluation(Callback):
    """Score the test split while it streams by, then print and write the results.

    Args:
        protocol: How maps, masks and image scores are prepared: uniad, ader or dinomaly; by default
            uniad at the model's image size, with its own window of the image score.
        image_size: Side of images and masks in pixels, without a crop, instead of the protocol's;
            it must be the model's.
        blur_sigma: Gaussian blur of the maps in pixels, instead of the protocol's.
        pool_size: Side of the window whose highest mean is the image score, instead of the
            protocol's; 1 is the maximum.
        top_fraction: Share of pixels whose mean is the image score, instead of the protocol's.
        estimator: exact, or source: pixel figures as the protocol's source estimates them, to
            reproduce a published number.
        tolerance: Largest error of a pixel figure, as a fraction of 1, that needs no second pass.
        save_maps: Write each anomaly map as maps/<path of its image>.npy, float32, and the image
            scores as scores.csv, for `omiad evaluate`.
        num_kept: Images of all categories whose maps are kept, small, for panels and `omiad
            report`: false alarms, misses and a spread; 0 keeps none.
        num_in_panel: Images in the picture of each category in panels/; 0 writes none.

    Raises:
        InputError: If there is no such protocol or a step is impossible.
    """

    results: Results

    def __init__(
        self,
        *,
        protocol: str | None = None,
        image_size: int | None = None,
        blur_sigma: float | None = None,
        pool_size: int | None = None,
        top_fraction: float | None = None,
        estimator: Literal["exact", "source"] = "exact",
        tolerance: float = TOLERANCE,
        save_maps: bool = False,
        num_kept: int = NUM_KEPT,
        num_in_panel: int = 6,
    ) -> None:
        self._takes_model_size = protocol is None and image_size is None
        self._takes_model_window = protocol is None and pool_size is None and top_fraction is None
        self._preset = find_protocol(
            protocol or "uniad",
            image_size=image_size,
            blur_sigma=blur_sigma,
            pool_size=1 if self._takes_model_window else pool_size,  # until the model is known
            top_fraction=top_fraction,
        )
        self.tolerance = tolerance
        self.estimator = estimator
        self.save_maps = save_maps
        self.num_kept = num_kept
        self.num_in_panel = num_in_panel

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the test masks as the protocol does.

        Raises:
            InputError: If the protocol gives a model other images than this one.
        """
        if stage != "test":
            return
        data = cast(DetectionModule, pl_module).data
        size, steps = data.image_size, self._preset
        if self._takes_model_size:
            steps = dataclasses.replace(steps, input_size=size, map_size=size)
        if steps.crop is not None or steps.input_size != size:
            cut = f"{steps.crop} x {steps.crop} pixels cut from " if steps.crop else ""
            raise InputError(
                f"Protocol {steps.name} gives a model {cut}{steps.input_size} x "
                f"{steps.input_size} pixels, but this one was trained on whole images of {size} x "
                f"{size}. Add --image_size {size} to compare at that size."
            )
        self._steps = steps
        data.prepare_mask = steps.prepare_mask

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty metrics for the categories of the test split.

        Raises:
            InputError: If both model and protocol would blur the maps.
        """
        module = cast(DetectionModule, pl_module)
        # Asked of all processes, for Lightning has them agree on it.
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._steps = self._with_models_own(module.detector)
        self._samples = module.data.samples("test")
        self._categories = [sample.category for sample in self._samples]
        self._metrics = AnomalyMetrics(
            sorted(set(self._categories)),
            tolerance=self.tolerance,
            source=self._steps.name if self.estimator == "source" else None,
        )
        self._gallery = KeptImages(self._samples, num_images=self.num_kept)
        self._clock = StepClock(module.device)

    def _with_models_own(self, detector: Detector) -> Protocol:
        """Return the steps with those that the model takes by itself."""
        scoring, changes = detector.scoring, dict[str, Any]()
        if scoring.blur_sigma > 0:
            if self._steps.blur_sigma > 0:
                raise InputError(
                    f"The model blurs its maps (sigma {scoring.blur_sigma:g}), and protocol "
                    f"{self._steps.name} would blur them again. Give --model.scoring.blur_sigma "
                    f"0 or --blur_sigma 0."
                )
            made = f"{self._steps.upsampling}; Gaussian, sigma {scoring.blur_sigma:g}"
            if self._takes_model_window:
                made += ", after the image score"
            changes["upsampling"] = made
        if self._takes_model_window:
            changes["pool_size"] = scoring.pool_size
        return dataclasses.replace(self._steps, **changes)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ScoringBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        self._clock.start()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ScoringBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Feed the metrics with one batch, and keep what is to be shown of it."""
        self._clock.stop(len(batch.labels.index))
        module = cast(DetectionModule, pl_module)
        prediction = self._feed(cast(Prediction, outputs), batch)
        self._gallery.add(
            prediction,
            batch.labels,
            picture=lambda rows: module.detector.picture(batch.features[rows]),
        )
        if self.save_maps:
            maps, root = cast(Prediction, outputs).anomaly_map.float().cpu(), module.data.root
            for index, pixels in zip(batch.labels.index.tolist(), maps, strict=True):
                name = Path(self._samples[index].name(root))
                path = self._folder / "maps" / name.with_suffix(".npy")
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, pixels.numpy())

    def _feed(self, given: Prediction, batch: ScoringBatch) -> Prediction:
        prepared = self._steps.prepare_map(given.anomaly_map.float().cpu())
        if self._takes_model_window and self._steps.blur_sigma == 0:
            score = given.score.float().cpu()  # of the map before the model's own blur
        else:
            score = self._steps.image_score(prepared)
        prediction = Prediction(score, prepared)
        categories = [self._categories[i] for i in batch.labels.index.tolist()]
        self._metrics.update(prediction, batch.labels, categories)
        return prediction

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute, print the table, write results.json into the run folder."""
        module = cast(DetectionModule, pl_module)

        def replay() -> None:
            logger.info("A figure's error may exceed the tolerance: scoring the images once more.")
            with torch.inference_mode():
                batches = cast(Iterable[Any], trainer.test_dataloaders)
                for on_cpu in islice(batches, int(trainer.num_test_batches[0])):
                    batch = trainer.strategy.batch_to_device(on_cpu)
                    self._feed(module.test_step(batch, 0), batch)

        self.results = self._metrics.compute(replay=replay)
        self._gallery.share()
        if not trainer.is_global_zero:
            return
        detector = module.detector
        Console().print(results_table(self.results, steps=self._steps.sentence))
        path = self._folder / "results.json"
        write_results(
            path,
            self.results,
            self._samples,
            root=module.data.root,
            protocol=self._steps,
            estimator=self.estimator,
            dataset=module.data.dataset_name,
            device=module.device,
            checkpoint=module.ckpt_path,
            selected_on="last",
            seed=detector.seed,
            weights=_weights(detector),
            latency=self._clock.as_record(),
            map_range=detector.map_range.tolist(),
            model={
                "kind": detector.kind,
                "t_init": detector.t_init,
                "num_steps": detector.num_steps,
                "eta": detector.eta,
                "num_noise_draws": detector.noise.shape[0],
                "backbone": detector.extractor.config["backbone"],
                "image_size": detector.extractor.image_size,
                "feature_size": detector.extractor.feature_size,
                "scoring": vars(detector.scoring),
            },
        )
        logger.info("results: %s", path)
        self._write_pictures(module, path)
        if self.save_maps:
            self._write_scores(module.data.root)

    def _write_scores(self, root: Path) -> None:
        path = self._folder / "scores.csv"
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file)
            rows.writerow(("image", "score"))
            for images in self.results.images.values():
                for index, score in zip(images.index.tolist(), images.score.tolist(), strict=True):
                    rows.writerow((self._samples[index].name(root), score))
        logger.info("maps: %s; image scores: %s", self._folder / "maps", path)

    def _write_pictures(self, module: DetectionModule, results: Path) -> None:
        """Write the maps that are kept, and the panels drawn from them."""
        if not self.num_kept:
            return
        root, train = module.data.root, module.data.samples("train")
        references = {sample.category: sample.name(root) for sample in reversed(train)}
        write_gallery(
            gallery_path(results),
            self._gallery.kept,
            self._samples,
            root=root,
            scale=module.detector.map_range.tolist(),
            references=references,
        )
        if self.num_in_panel:
            write_panels(results, num_images=self.num_in_panel)


def _weights(detector: Detector) -> dict[str, str]:
    """Return hashes by which a report finds the teacher of a student."""
    hashes = {"model": weights_hash(detector.denoiser.network)}
    return hashes | ({"teacher": detector.teacher_hash} if detector.teacher_hash else {})
