"""Score the anomaly maps of any method, with the code that scores our own."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from omiad.data.images import load_mask
from omiad.data.layouts import Layout, index_dataset
from omiad.errors import InputError
from omiad.evaluation.maps import complain, find_maps, read_map, read_scores
from omiad.metrics import AnomalyMetrics, results_table
from omiad.metrics.pixels import TOLERANCE
from omiad.protocols import Protocol, find_protocol
from omiad.report import NUM_KEPT, KeptImages, gallery_path, write_gallery
from omiad.results import Bootstrap, write_results
from omiad.types import Labels, Prediction, Sample

logger = logging.getLogger(__name__)

_BATCH_SIZE = 16


@dataclass(frozen=True)
class EvaluatedData:
    """The data set whose test images the maps belong to.

    Attributes:
        root: Folder of the data set; training images are not needed.
        layout: How it lies: auto, mvtec, visa, mpdd, realiad, realiad_sv, folder or
            synthetic.
    """

    root: str
    layout: Layout = "auto"

    def index(self) -> list[Sample]:
        """List the test images.

        Raises:
            InputError: If there are none.
        """
        root = Path(self.root).expanduser()
        samples = index_dataset(root, self.layout, test_only=True).samples
        if not samples:
            raise InputError(f"'{root}' has no test images. Check --data.root.")
        return samples


def evaluate(
    maps: str,
    data: EvaluatedData,
    *,
    output: str = "results.json",
    scores: str | None = None,
    protocol: str = "uniad",
    image_size: int | None = None,
    blur_sigma: float | None = None,
    pool_size: int | None = None,
    top_fraction: float | None = None,
    estimator: Literal["exact", "source"] = "exact",
    tolerance: float = TOLERANCE,
    num_resamples: int = 1000,
    seed: int = 0,
    num_kept: int = NUM_KEPT,
) -> None:
    """Score the anomaly maps of any method: the same figures, and the same results.json, as `test`.

    A map lies at its image's path below the root, with another suffix: bolt/test/dent/003.npy for
    bolt/test/dent/003.png. It holds raw scores, float32 or less (npy, npz, png, tiff), of the size
    the protocol gives images. No model and no training image is needed.

    Args:
        maps: Folder of the maps.
        data: The data set.
        output: File to write; the images' scores go beside it.
        scores: Table with the columns image and score, of a method with image scores of its own.
        protocol: How maps, masks and image scores are prepared: uniad, ader or dinomaly.
        image_size: Side of the maps in pixels, and of the masks beside them, without a crop.
        blur_sigma: Gaussian blur of the maps in pixels, instead of the protocol's.
        pool_size: Side of the window whose highest mean is the image score, instead of the
            protocol's; 1 is the maximum.
        top_fraction: Share of pixels whose mean is the image score, instead of the protocol's.
        estimator: exact, or source: pixel figures as the protocol's source estimates them, to
            reproduce a published number.
        tolerance: Largest error of a pixel figure, as a fraction of 1, that needs no second pass.
        num_resamples: Draws of images behind the intervals; 0 gives none.
        seed: Seed of the draws.
        num_kept: Images of all categories whose maps are kept, small, for `omiad report`: false
            alarms, misses and a spread; 0 keeps none.

    Raises:
        InputError: If the output exists, or maps and test images do not fit.
    """
    path = Path(output)
    if path.exists():
        raise InputError(f"'{path}' is there already. Choose another --output.")
    bootstrap = Bootstrap(num_resamples, seed)
    steps = find_protocol(
        protocol,
        image_size=image_size,
        blur_sigma=blur_sigma,
        pool_size=pool_size,
        top_fraction=top_fraction,
    )
    samples = data.index()
    root = Path(data.root).expanduser()
    names = [sample.name(root) for sample in samples]
    files = find_maps(Path(maps), names)
    given = None if scores is None else read_scores(Path(scores), names)
    metrics = AnomalyMetrics(
        sorted({sample.category for sample in samples}),
        tolerance=tolerance,
        source=protocol if estimator == "source" else None,
    )
    gallery = KeptImages(samples, num_images=num_kept)

    def feed(*, keep: bool = False) -> None:
        for prediction, labels in _batches(samples, files, steps, given):
            categories = [samples[i].category for i in labels.index.tolist()]
            metrics.update(prediction, labels, categories)
            if keep:
                gallery.add(prediction, labels)

    feed(keep=True)
    results = metrics.compute(replay=feed)
    Console().print(results_table(results, steps=steps.sentence))
    write_results(
        path,
        results,
        samples,
        root=root,
        protocol=steps,
        dataset=root.resolve().name,
        device=torch.device("cpu"),
        bootstrap=bootstrap,
        estimator=estimator,
        checkpoint=None,
        selected_on=None,
        seed=None,
        weights=None,
        latency=None,
        map_range=gallery.scale(),
        model={"kind": "maps", "maps": maps, "scores": scores},
    )
    if num_kept:
        write_gallery(gallery_path(path), gallery.kept, samples, root=root, scale=gallery.scale())
    logger.info("results: %s", path)


def _batches(
    samples: Sequence[Sample], files: Sequence[Path], protocol: Protocol, scores: Tensor | None
) -> Iterator[tuple[Prediction, Labels]]:
    """Read maps and masks; faulty maps are named together at the end."""
    faults: dict[str, list[str]] = {"faults in": []}
    shape = (protocol.given_size, protocol.given_size)
    indices = track(range(len(samples)), description="evaluate", transient=True)
    for _, group in groupby(indices, lambda i: i // _BATCH_SIZE):
        maps, rows = [], []
        for i in group:
            try:
                pixels = read_map(files[i])
            except InputError as error:
                faults["faults in"].append(str(error).rstrip("."))
                continue
            if tuple(pixels.shape) != shape:
                faults["faults in"].append(
                    f"'{files[i]}' is {pixels.shape[0]} x {pixels.shape[1]}, not {shape[0]} x "
                    f"{shape[1]}"
                )
                continue
            maps.append(pixels)
            rows.append(i)
        if faults["faults in"] or not rows:
            continue
        prepared = protocol.prepare_map(torch.stack(maps))
        index = torch.tensor(rows)
        score = protocol.image_score(prepared) if scores is None else scores[index]
        yield Prediction(score, prepared), _known([samples[i] for i in rows], index, protocol)
    complain(
        f"Protocol {protocol.name} takes maps of {shape[0]} x {shape[1]} finite scores (another "
        f"side: --image_size).",
        faults,
    )


def _known(samples: Sequence[Sample], index: Tensor, protocol: Protocol) -> Labels:
    """Return what is known of images, without their pixels."""
    side = protocol.map_size
    masks = [
        torch.zeros(side, side, dtype=torch.bool)
        if sample.mask is None
        else protocol.prepare_mask(load_mask(sample.mask, image=sample.image))
        for sample in samples
    ]
    labels = torch.tensor([sample.is_anomalous for sample in samples])
    with_mask = torch.tensor([sample.mask is not None for sample in samples])
    return Labels(
        is_anomalous=labels,
        masks=torch.stack(masks),
        has_mask=with_mask | ~labels,
        index=index,
    )
