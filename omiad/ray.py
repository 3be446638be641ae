"""Photographs in a cluster of Ray: what `map_batches` of Ray Data calls for each batch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError
from omiad.inspection import Inspection
from omiad.names import one_line
from omiad.photographs import Reader, opened_content
from omiad.runtimes import device_for

Column = NDArray[Any]
"""One value for each photograph (B,)."""


class RayScorer:
    """Decides about the contents of image files, as `omiad predict` does, to the last bit.

    Each worker of the cluster loads the model once. Ray decodes images by rules of its own, so the
    files are given as they are.

    Args:
        model: Checkpoint or export, at a path that every worker can read.
        category: The product that all photographs show; by default it is recognised.
        false_alarms: Share of normal photographs that may be called defective; by default the rate
            that the model was calibrated for.
        device: cpu, cuda, or auto for the GPU that Ray gave the worker, if it gave one.
        trust: Class path of a network of your own that the checkpoint names; it is imported.

    Raises:
        InputError: If the model cannot be read, does not know the product, or its photographs do
            not support the rate.

    Examples:
        >>> import ray
        >>> from omiad import RayScorer
        >>> files = ray.data.read_binary_files("photos/", include_paths=True)
        >>> files.map_batches(
        ...     RayScorer, fn_constructor_args=["model.ckpt"], batch_size=32, concurrency=2
        ... ).write_csv("decisions/")
    """

    def __init__(
        self,
        model: str,
        *,
        category: str | None = None,
        false_alarms: float | None = None,
        device: str = "auto",
        trust: str | None = None,
    ) -> None:
        where = pick_device(device_for(model, device))
        self._predictor = Detector.load(model, device=where, trust=trust)
        self._predictor.judge(category, false_alarms)
        self._options: dict[str, Any] = {"category": category, "false_alarms": false_alarms}
        intake = self._predictor.extractor
        self._reader = Reader(
            intake.image_size, white_level=intake.white_level, tiles=intake.tiling.tiles
        )

    def __call__(self, batch: Mapping[str, Column]) -> dict[str, Column]:
        """Return a row for each file of a batch with the columns "path" and "bytes".

        Columns are as in the table of `omiad predict`; score, p_value and threshold are NaN where
        there is none, and error says why a file is unreadable.
        """
        read = [self._read(*each) for each in zip(batch["bytes"], batch["path"], strict=True)]
        good = [each for each in read if not isinstance(each, str)]
        found = iter(self._inspect(good) if good else [])
        rows = [_row(each if isinstance(each, str) else next(found)) for each in read]
        names = ("product", "score", "p_value", "threshold", "decision", "error")
        columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
        return {"path": batch["path"], **columns}

    def _read(self, content: bytes, path: str) -> tuple[Tensor, tuple[int, int]] | str:
        name = f"'{one_line(str(path))}'"
        try:
            with opened_content(content, name) as image:
                return self._reader.read(image, name)
        except InputError as error:
            return str(error)

    def _inspect(self, read: list[tuple[Tensor, tuple[int, int]]]) -> list[Inspection]:
        images, sizes = zip(*read, strict=True)
        device = self._predictor.map_range.device
        return self._predictor.inspect(torch.stack(images).to(device), sizes=sizes, **self._options)


def _row(found: Inspection | str) -> tuple[str, float, float, float, str, str]:
    if isinstance(found, str):
        return "", np.nan, np.nan, np.nan, "unreadable", found
    p_value = np.nan if found.p_value is None else found.p_value
    threshold = found.threshold.image if found.threshold else np.nan
    return found.category or "", found.score, p_value, threshold, found.decision, ""
