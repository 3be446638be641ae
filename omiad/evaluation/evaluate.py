"""Score the anomaly maps of any method with the code that scores ours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from omiad.data.images import load_mask
from omiad.data.layouts import Layout, index_dataset
from omiad.errors import InputError
from omiad.evaluation.evaluator import Evaluator
from omiad.evaluation.maps import complain, find_maps, read_map, read_scores
from omiad.evaluation.options import EvaluationOptions
from omiad.protocols import Protocol
from omiad.results import Bootstrap
from omiad.types import Labels, Sample

_BATCH_SIZE = 16


@dataclass(frozen=True)
class EvaluatedData:
    """The data set whose test images the maps belong to.

    Attributes:
        root: Folder of the data set; training images are not needed.
        layout: Its layout: auto, mvtec, visa, mpdd, realiad, realiad_sv, folder or synthetic.
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
    num_resamples: int = 1000,
    seed: int = 0,
    **options: Any,
) -> None:
    """Score the anomaly maps of any method: the same figures and results.json as `omiad test`.

    A map has the path of its image below the root, with another suffix: bolt/test/dent/003.npy for
    bolt/test/dent/003.png. It holds raw scores, float32 or less (npy, npz, png, tiff), of the size
    the protocol gives images. Neither a model nor a training image is needed.

    Args:
        maps: Folder of the maps.
        data: The data set.
        output: File to write; the scores of the images are written next to it.
        scores: Table with the columns image and score, if the method has its own image scores.
        num_resamples: Draws of images behind the intervals; 0 gives none.
        seed: Seed of the draws.
        options: See `EvaluationOptions`.

    Raises:
        InputError: If the output exists, or maps and test images do not fit.
    """
    path, root = Path(output), Path(data.root).expanduser()
    if path.exists():
        raise InputError(f"'{path}' already exists. Choose another --output.")
    bootstrap = Bootstrap(num_resamples, seed)
    chosen = EvaluationOptions(**options)
    protocol, samples = chosen.build_protocol(), data.index()
    names = [sample.name(root) for sample in samples]
    files = find_maps(Path(maps), names)
    given = None if scores is None else read_scores(Path(scores), names)
    evaluator = Evaluator(samples, root=root, protocol=protocol, options=chosen)

    def add_all() -> None:
        for pixels, labels in _batches(samples, files, protocol):
            evaluator.add(pixels, labels, score=None if given is None else given[labels.index])

    add_all()
    evaluator.compute(replay=add_all)
    evaluator.write(
        path,
        scale=evaluator.map_scale(),
        dataset=root.resolve().name,
        device=torch.device("cpu"),
        bootstrap=bootstrap,
        checkpoint=None,
        selected_on=None,
        seed=None,
        weights=None,
        latency=None,
        model={"kind": "maps", "maps": maps, "scores": scores},
    )


def _batches(
    samples: Sequence[Sample], files: Sequence[Path], protocol: Protocol
) -> Iterator[tuple[Tensor, Labels]]:
    """Read maps and masks; faulty maps are named together at the end."""
    faults: list[str] = []
    side = protocol.given_size
    indices = track(range(len(samples)), description="evaluate", transient=True)
    for _, group in groupby(indices, lambda i: i // _BATCH_SIZE):
        maps, rows = [], []
        for i in group:
            try:
                pixels = read_map(files[i])
            except InputError as error:
                faults.append(str(error).rstrip("."))
                continue
            height, width = pixels.shape
            if (height, width) == (side, side):
                maps.append(pixels)
                rows.append(i)
            else:
                faults.append(f"'{files[i]}' is {height} x {width}, not {side} x {side}")
        if rows and not faults:
            yield torch.stack(maps), _labels(samples, rows, protocol)
    complain(
        f"Protocol {protocol.name} takes maps of {side} x {side} finite scores (another side: "
        f"--image_size).",
        {"faults in": faults},
    )


def _labels(samples: Sequence[Sample], rows: list[int], protocol: Protocol) -> Labels:
    """Return what is known about some images."""
    images = [samples[i] for i in rows]
    masks = [
        torch.zeros(protocol.map_size, protocol.map_size, dtype=torch.bool)
        if sample.mask is None
        else protocol.prepare_mask(load_mask(sample.mask, image=sample.image))
        for sample in images
    ]
    is_anomalous = torch.tensor([sample.is_anomalous for sample in images])
    with_mask = torch.tensor([sample.mask is not None for sample in images])
    return Labels(is_anomalous, torch.stack(masks), with_mask | ~is_anomalous, torch.tensor(rows))
