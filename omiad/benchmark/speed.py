"""The speed of one model on some photographs."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from omiad.benchmark.machine import forget_peak, peak_megabytes
from omiad.benchmark.timing import Times, part_seconds, repeated, summary
from omiad.photographs import Reader
from omiad.predictor import Predictor

PARTS = {
    "backbone": "extractor",
    "network": "denoiser.network",
    "memory": "memory",
    "product memory": "product_memory",
}
"""Parts of a detector by their names, with the submodules whose calls are timed.

An export is one graph, which has no parts.
"""

SYNTHETIC = (1024, 1024)
"""Width and height of the photograph that is measured with if none is given."""


class BatchSpeed(TypedDict):
    """Speed of one batch size.

    Attributes:
        batch_size: Photographs that were scored at once.
        scoring: Times of a batch, from pixels in memory to decisions.
        parts_ms: Median of each part of a batch; "rest" is the map, the score and the decision.
        peak_megabytes: Highest use of memory meanwhile, see `peak_megabytes`.
    """

    batch_size: int
    scoring: Times
    parts_ms: dict[str, float]
    peak_megabytes: float | None


class Speed(TypedDict):
    """Speed of a model.

    Attributes:
        model: Its file.
        precision: The precision of backbone and network.
        num_steps: DDIM steps; None for an export, which does not say.
        decode: Times to read, decode and resize one photograph, by one thread.
        batches: Speed of each batch size.
    """

    model: str
    precision: str
    num_steps: int | None
    decode: Times
    batches: list[BatchSpeed]


def measure(
    predictor: Predictor,
    model: str,
    photographs: Sequence[Path],
    batch_sizes: Sequence[int],
    *,
    seconds: float,
) -> Speed:
    """Return how fast a model reads and scores photographs.

    Args:
        predictor: The model.
        model: Its file.
        photographs: Files, which are repeated to fill a batch.
        batch_sizes: Photographs that are scored at once.
        seconds: Time of the runs of each figure, if 5 runs do not take longer.
    """
    intake, device = predictor.extractor, predictor.map_range.device
    reader = Reader(intake.image_size, white_level=intake.white_level, tiles=intake.tiling.tiles)
    read = [reader.read(path) for path in photographs[: max(batch_sizes)]]
    decode = repeated(lambda: reader.read(photographs[0]), torch.device("cpu"), seconds=1)
    batches: list[BatchSpeed] = []
    for size in batch_sizes:
        chosen = [read[i % len(read)] for i in range(size)]
        images, sizes = torch.stack([pixels for pixels, _ in chosen]), [own for _, own in chosen]

        def run(images: torch.Tensor = images, sizes: list[tuple[int, int]] = sizes) -> object:
            return predictor.inspect(images.to(device), sizes=sizes)

        forget_peak(device)
        times = repeated(run, device, seconds=seconds)
        peak = peak_megabytes(device)
        parts = part_seconds(run, predictor, PARTS, device)
        batches.append(
            {
                "batch_size": size,
                "scoring": summary(times),
                "parts_ms": {name: 1000 * each for name, each in parts.items()},
                "peak_megabytes": peak,
            }
        )
    config = getattr(intake, "config", {})
    return {
        "model": model,
        "precision": str(config.get("precision", "that of the export")),
        "num_steps": getattr(predictor, "num_steps", None),
        "decode": summary(decode),
        "batches": batches,
    }


@contextmanager
def synthetic_photograph() -> Iterator[Path]:
    """Write a JPEG of smooth noise, on which no time but that of decoding depends."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(coarse).resize(SYNTHETIC, Image.Resampling.BICUBIC)
    image.save(file, "JPEG", quality=90)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "synthetic.jpg"
        path.write_bytes(file.getvalue())
        yield path
