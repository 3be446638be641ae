"""What every evaluation does: measure predictions as they stream by, then write the results."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omiad.errors import InputError
from omiad.evaluation.options import EvaluationOptions
from omiad.metrics import AnomalyMetrics, Results, results_table
from omiad.names import one_line
from omiad.protocols import Protocol
from omiad.report import KeptImages, write_gallery
from omiad.results import gallery_path, write_results
from omiad.scoring import map_scale
from omiad.terminal import console
from omiad.types import Labels, Prediction, Sample

logger = logging.getLogger(__name__)

_GRID = 8
"""Side of the grid of pixels of each map that the scale of the maps is taken from."""


class Evaluator:
    """Measures one test: its figures, and the small maps that a report shows."""

    results: Results

    def __init__(
        self,
        samples: Sequence[Sample],
        root: Path,
        protocol: Protocol,
        options: EvaluationOptions,
        *,
        source: object = "a model",
    ) -> None:
        self._source = source
        self.names = [sample.name(root) for sample in samples]
        self.protocol = protocol
        self._samples = samples
        self._root = root
        self._options = options
        self._metrics = AnomalyMetrics(
            sorted({sample.category for sample in samples}),
            tolerance=options.tolerance,
            source=protocol.name if options.estimator == "source" else None,
        )
        self._kept = KeptImages(samples, num_images=options.num_kept)
        self._pixels: list[tuple[Tensor, Tensor]] = []  # and the labels of their images
        self._is_replay = False

    def add(
        self,
        anomaly_map: Tensor,
        labels: Labels,
        *,
        score: Tensor | None = None,
        picture: Callable[[list[int]], Tensor | None] | None = None,
    ) -> None:
        """Measure a batch of maps (B, S, S) of the size that the protocol takes.

        Given scores (B,) replace the protocol's. `picture` is that of `KeptImages.add`.
        """
        maps = self.protocol.prepare_map(anomaly_map.float().cpu())
        scores = self.protocol.image_score(maps) if score is None else score.cpu()
        prediction = Prediction(scores, maps)
        is_finite = torch.isfinite(scores) & torch.isfinite(maps).flatten(1).all(1)
        if not is_finite.all():
            name = self.names[int(labels.index.cpu()[~is_finite][0])]
            raise InputError(
                f"The scores of '{one_line(name)}' by {self._source} are NaN or infinite. A model "
                f"may have overflowed the precision of its training: train again with "
                f"--trainer.precision 32-true. Other methods need finite maps of float32."
            )
        categories = [self._samples[i].category for i in labels.index.tolist()]
        self._metrics.update(prediction, labels, categories)
        if self._is_replay:
            return
        self._kept.add(prediction, labels, picture=picture)
        step = -(-maps.shape[-1] // _GRID)
        self._pixels.append((maps[:, ::step, ::step].clone(), labels.is_anomalous.cpu()))

    def compute(self, *, replay: Callable[[], None]) -> None:
        """Compute the figures over all processes; every process must call this method.

        If the error of a figure may exceed the tolerance, `replay` adds the same batches again.
        """

        def add_again() -> None:
            logger.info("A figure's error may exceed the tolerance: scoring the images once more.")
            self._is_replay = True
            replay()

        self.results = self._metrics.compute(replay=add_again)
        self._kept.share()

    def map_scale(self) -> tuple[float, float]:
        """Return the scale of the maps of normal images, or of all images if none is normal."""
        pixels, is_anomalous = (torch.cat(column) for column in zip(*self._pixels, strict=True))
        return map_scale(pixels if is_anomalous.all() else pixels[~is_anomalous])

    def write_gallery(
        self,
        path: Path,
        *,
        scale: tuple[float, float],
        references: dict[str, str] | None = None,
    ) -> None:
        """Print the table, and write the kept images of a results.json, if there are any.

        `scale` and `references` are those of `write_gallery`.
        """
        console().print(results_table(self.results, steps=self.protocol.sentence))
        if self._options.num_kept:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_gallery(
                gallery_path(path),
                self._kept.kept,
                self._samples,
                root=self._root,
                scale=scale,
                references=references,
            )

    def write(self, path: Path, *, scale: tuple[float, float], **about: Any) -> None:
        """Write results.json after all files beside it; `about` goes to `write_results`."""
        write_results(
            path,
            self.results,
            self._samples,
            root=self._root,
            protocol=self.protocol,
            estimator=self._options.estimator,
            map_range=list(scale),
            gallery=gallery_path(path) if self._options.num_kept else None,
            **about,
        )
        logger.info("results: %s", path)
