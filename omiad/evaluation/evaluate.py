"""Score the anomaly maps of any method with the code that scores ours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from omiad.data.layouts import Layout, index_dataset
from omiad.data.masks import load_mask
from omiad.errors import InputError, together
from omiad.evaluation.evaluator import Evaluator
from omiad.evaluation.maps import complain, find_maps, read_map, read_scores
from omiad.evaluation.options import EvaluationOptions
from omiad.files import expanded, new_file
from omiad.progress import track
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
    the protocol gives images. The npz files of UniAD, HVQ-Trans and DiAD are read as they are.
    Neither a model nor a training image is needed.

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
    path, bootstrap = Path(output), Bootstrap(num_resamples, seed)
    chosen = EvaluationOptions(**options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, option="--output"):
        _evaluate(path, maps, data, scores, bootstrap, chosen)


def _evaluate(
    path: Path,
    maps: str,
    data: EvaluatedData,
    scores: str | None,
    bootstrap: Bootstrap,
    chosen: EvaluationOptions,
) -> None:
    root = expanded(data.root)
    protocol = chosen.build_protocol()
    index = index_dataset(root, data.layout, for_test=True)
    samples = [sample for sample in index.samples if sample.split == "test"]
    if not samples:
        raise InputError(f"'{root}' has no test images. Check --data.root.")
    evaluator = Evaluator(samples, root, protocol, chosen, source=f"the maps in '{maps}'")
    files = find_maps(Path(maps), evaluator.names)
    given = None if scores is None else read_scores(Path(scores), evaluator.names)

    def add_all() -> None:
        for pixels, labels in _batches(samples, files, protocol):
            evaluator.add(pixels, labels, score=None if given is None else given[labels.index])

    add_all()
    evaluator.compute(replay=add_all)
    scale = evaluator.map_scale()
    evaluator.write_gallery(path, scale=scale)
    evaluator.write(
        path,
        scale=scale,
        dataset=root.resolve().name,
        device=torch.device("cpu"),
        bootstrap=bootstrap,
        **dict.fromkeys(("checkpoint", "selected_on", "seed", "weights", "latency")),
        model={"kind": "maps", "maps": maps, "scores": scores},
    )


def _batches(
    samples: Sequence[Sample], files: Sequence[Path], protocol: Protocol
) -> Iterator[tuple[Tensor, Labels]]:
    """Read maps and masks; faulty maps, or else faulty masks, are named together at the end."""
    faults: list[str] = []
    masks_at_fault: list[InputError] = []
    side = protocol.given_size
    starts = range(0, len(samples), _BATCH_SIZE)
    for start in track(starts, "evaluate", unit="batch"):
        maps, stop = [], min(start + _BATCH_SIZE, len(samples))
        for file in files[start:stop]:
            try:
                pixels = read_map(file)
            except InputError as error:
                faults.append(str(error).rstrip("."))
                continue
            height, width = pixels.shape
            if (height, width) != (side, side):
                faults.append(f"'{file}' is {height} x {width}, not {side} x {side}")
            maps.append(pixels)
        images, index = samples[start:stop], torch.arange(start, stop)
        drawn = [_mask(sample, protocol) for sample in images]
        masks_at_fault += [mask for mask in drawn if isinstance(mask, InputError)]
        if not faults and not masks_at_fault:
            masks, num_vanished = zip(*cast(list[tuple[Tensor, int]], drawn), strict=True)
            is_anomalous = torch.tensor([sample.is_anomalous for sample in images])
            is_drawn = torch.tensor([bool(sample.masks) for sample in images])
            yield (
                torch.stack(maps),
                Labels(
                    is_anomalous,
                    torch.stack(masks),
                    is_drawn | ~is_anomalous,
                    index,
                    torch.tensor(num_vanished),
                ),
            )
    complain(
        f"Protocol {protocol.name} takes maps of {side} x {side} finite scores (another side: "
        f"--image_size).",
        {"faults in": faults},
    )
    if masks_at_fault:
        raise together(masks_at_fault)


def _mask(sample: Sample, protocol: Protocol) -> tuple[Tensor, int] | InputError:
    """Return the mask of a photograph and its vanished regions, or why the mask cannot be used."""
    if not sample.masks:
        return torch.zeros(protocol.map_size, protocol.map_size, dtype=torch.uint8), 0
    try:
        return protocol.label_mask(load_mask(sample.masks, image=sample.image))
    except InputError as error:
        return error
