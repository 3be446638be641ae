"""The whole path of a detector as one graph, traced from the detector's own modules."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from omiad.detector import Detector
from omiad.errors import InputError
from omiad.names import one_line
from omiad.products import UNKNOWN


class Graph(nn.Module):
    """A detector from photographs to decisions, by operations on tensors alone."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.judge = detector.judge(None, None)

    def forward(self, images: Tensor, given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs `omiad.runtimes.NAMES` for any number of photographs.

        Args:
            images: uint8 RGB (B, 3, S, S).
            given: Numbers of the products that are shown (B,), int64; `UNKNOWN` recognises them.
        """
        features = self.detector.extractor(images).half()  # as every score uses them
        score, anomaly_map, shown = self.detector.assess(features, given)
        p_value, decision = self.judge.verdict(score, shown)
        return score, p_value, decision, shown, anomaly_map


@torch.no_grad()
def trace(detector: Detector) -> ExportedProgram:
    """Return the graph of a detector on the CPU, for any number of photographs.

    Raises:
        InputError: If the detector does what a graph cannot, or torch cannot trace it.
    """
    _check(detector)
    side = detector.extractor.image_size
    inputs = (torch.zeros(2, 3, side, side, dtype=torch.uint8), torch.full((2,), UNKNOWN))
    batch = Dim("batch", min=1, max=4096)
    try:
        return torch.export.export(
            Graph(detector).eval(), inputs, dynamic_shapes=({0: batch}, {0: batch})
        )
    except Exception as error:  # torch raises many kinds, and a network of one's own any
        reason = one_line(str(error).strip().partition("\n")[0])[:300]
        raise InputError(
            f"{detector.source or 'The model'} cannot be traced as a graph ({reason}). A network "
            f"of your own must do without branches on the values of tensors."
        ) from error


def _check(detector: Detector) -> None:
    """Refuse what has no graph."""
    extractor, source = detector.extractor, detector.source or "The model"
    if extractor.tiling.count > 1:
        rows, columns = extractor.tiling.tiles
        raise InputError(
            f"{source} cuts photographs into [{rows}, {columns}] tiles, which cannot be exported. "
            f"Train a model without --data.tiles, or use the checkpoint."
        )
    if extractor.autocast_dtype is not None:
        raise InputError(
            f"{source} computes its features in {extractor.config['precision']}, which cannot be "
            f"exported. Train a model with --data.precision float32, or use the checkpoint."
        )
    if detector.num_steps > 1 and detector.eta > 0:
        raise InputError(
            f"{source} draws fresh noise in its {detector.num_steps} steps (eta {detector.eta:g}), "
            f"which cannot be exported. Score with --model.eta 0, or in one step."
        )
