"""How far exports are from their model, and how long each takes beside its bare backbone.

    python tests/benchmarks/exports.py --model model.ckpt --photos FOLDER

Prints the worst differences of the score and of the map over all photographs below a folder, and
medians of the processor's time for one photograph, on as many threads as torch has.
"""

import time
from collections.abc import Callable
from itertools import islice
from statistics import median
from typing import Any

import numpy as np
import torch
from jsonargparse import CLI
from torch import nn

from omiad import Detector
from omiad.export.comparison import compare, given_photographs
from omiad.export.drafts import FORMS
from omiad.export.graph import trace

PRECISIONS = (
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("openvino", "float32"),
    ("openvino", "float16"),
    ("openvino", "bfloat16"),
    ("torch", "float32"),
)


class Backbone(nn.Module):
    """The network of a detector that makes features, from photographs to its own maps."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.extractor = detector.extractor

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        extractor = self.extractor
        return tuple(extractor.backbone((images / 255 - extractor.mean) / extractor.std))


def main(model: str, photos: str, *, repetitions: int = 30, every: int = 1) -> None:
    """Measure.

    Args:
        model: Checkpoint.
        photos: Folder of photographs.
        repetitions: How often each is timed.
        every: Only every so many of the photographs are compared.
    """
    torch.set_grad_enabled(False)
    detector = Detector.load(model)
    program = trace(detector)
    image = torch.randint(0, 256, (1, 3, *[detector.extractor.image_size] * 2), dtype=torch.uint8)
    inputs = image.numpy(), np.array([-1])
    timed: dict[str, Callable[[], Any]] = {
        "eager": lambda: detector.assess_images(image, None),
        "eager, backbone": lambda: Backbone(detector)(image),
        **backbones(detector, image),
    }
    print("| format | photographs | score | map | other decisions |\n|---|---|---|---|---|")
    for name, precision in PRECISIONS:
        run = FORMS[name].draft(program, precision).session().start(precision)
        timed[f"{name} {precision}"] = lambda run=run: run(*inputs)
        photographs = islice(given_photographs(detector, [photos]), 0, None, every)
        found = compare(detector, run, photographs, tolerance=float("inf"))
        print(
            f"| {name} {precision} | {found.compared} | {found.score:.1e} | "
            f"{found.anomaly_map:.1e} | {len(found.unlike)} |",
            flush=True,
        )
    print("\n| part | ms |\n|---|---|")
    for name, values in times(timed, repetitions).items():
        print(f"| {name} | {1000 * median(values):.0f} |")


def backbones(detector: Detector, image: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Return the bare backbone in each runtime."""
    import onnxruntime
    import openvino

    exported = torch.onnx.export(Backbone(detector).eval(), (image,), dynamo=True, verbose=False)
    content = exported.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    found: dict[str, Callable[[], Any]] = {"onnx, backbone": lambda: session.run(None, feed)}
    core = openvino.Core()
    for precision in ("f32", "bf16"):
        hints = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(core.read_model(content), "CPU", hints)
        found[f"openvino {precision}, backbone"] = lambda run=compiled: run([image.numpy()])
    return found


def times(timed: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Return the processor's seconds of each, in turns, so that other work counts little."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for repetition in range(repetitions + 3):
        for name, run in timed.items():
            start = time.process_time()
            run()
            if repetition >= 3:
                seconds[name].append(time.process_time() - start)
    return seconds


if __name__ == "__main__":
    CLI(main, as_positional=False)
