"""What `targets.py` times: a model, its exports, its bare backbone, and the old default."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from torch import Tensor, nn

from omiad import Detector
from omiad.compilation import compile_detector
from omiad.export.drafts import draft_of
from omiad.export.graph import trace
from omiad.networks import network_spec, unet_small
from omiad.runtimes.sessions import Run

FORMATS = (
    ("onnx", "float32"),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("openvino", "float32"),
    ("openvino", "float16"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
    ("torch", "float32"),
)
"""Formats and precisions of exports; float16 stores weights in half, and computes in float32.

Of int8 only the denoising network takes part, so its backbone is that of float32.
"""

OLD_PATCHES, OLD_STAGES = 4000, [1, 2, 3]

Calls = dict[str, Callable[[], Any]]


def exports(detector: Detector, examples: Sequence[Tensor]) -> dict[str, Run]:
    """Return the function that runs each export, by format and precision.

    int8 takes its ranges from the examples (3, S, S), uint8.
    """
    program, images = trace(detector), [example.numpy() for example in examples]
    return {
        f"{name} {precision}": draft_of(program, name, precision, images)[1]
        for name, precision in FORMATS
    }


class Backbone(nn.Module):
    """The network of a detector that makes features, from photographs to its own maps."""

    def __init__(self, detector: Detector, network: nn.Module) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, detector.extractor.mean, detector.extractor.std

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network((images / 255 - self.mean) / self.std))


def backbones(detector: Detector, image: Tensor) -> Calls:
    """Return the bare backbone in each runtime, by the names of the exports that it belongs to."""
    plain = Backbone(detector, detector.extractor.backbone).eval()
    fused = Backbone(detector, detector.extractor.fast_backbone)
    exported = torch.onnx.export(plain, (image,), dynamo=True, verbose=False)
    content = exported.model_proto.SerializeToString()
    onnx = in_onnx_runtime(content, image)
    half, single = (in_openvino(content, image, precision) for precision in ("bf16", "f32"))
    return {
        "eager": lambda: fused(image),
        "eager, batch norms apart": lambda: plain(image),
        "onnx float32": onnx,
        "openvino float32": single,
        "openvino bfloat16": half,
    }


def in_onnx_runtime(content: bytes, image: Tensor) -> Callable[[], Any]:
    """Return a call of an ONNX model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


def in_openvino(content: bytes, image: Tensor, precision: str) -> Callable[[], Any]:
    """Return a call of an ONNX model in OpenVINO."""
    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(core.read_model(content), "CPU", hints)
    return lambda: compiled([image.numpy()])


def own_backbone(name: str) -> str:
    """Return the name of the backbone that an export is compared with."""
    runtime, _, precision = name.partition(" ")
    if runtime in ("onnx", "openvino") and precision != "bfloat16":
        return f"{runtime} float32"
    return {"torch float32": "eager, batch norms apart"}.get(name, name)


def old_default(detector: Detector) -> Detector:
    """Return a detector with the settings of before the memory of each product.

    Stages 1 to 3 on one grid, the U-Net of that width, and 4,000 patches of each product that all
    photographs are compared with. Weights and patches are random, which changes no time.
    """
    spec = detector.spec
    extractor = {**spec["extractor"], "stages": OLD_STAGES}
    extractor.pop("fold", None)
    scoring = {"memory": "shared", "memory_size": OLD_PATCHES, "blur_sigma": 8.0, "pool_size": 32}
    spec |= {"extractor": extractor, "scoring": scoring, "decoder_width": None}
    spec |= {"added": [], "remembered": [], "products": []}
    with torch.random.fork_rng(devices=[]):
        channels = old_channels(extractor)
        old = Detector.from_spec({**spec, "network": network_spec(unet_small(channels))}).eval()
    num_patches = OLD_PATCHES * max(1, len(detector.products.names))
    old.memory.patches = torch.rand(num_patches, 2 * channels)
    return old


def old_channels(extractor: dict[str, Any]) -> int:
    """Return the number of channels of the features of an extractor."""
    from omiad.features import FeatureExtractor

    return FeatureExtractor(**extractor, weights="random").num_channels


def calls(detector: Detector, runs: dict[str, Run], old: Detector, image: Tensor) -> Calls:
    """Return everything that scores one photograph, and each network's part of it."""
    ten = Detector.from_spec({**detector.spec, "num_steps": 10, "added": [], "remembered": []})
    ten.denoiser, ten.normalizer = detector.denoiser, detector.normalizer
    features = detector.extractor.features(image)
    inputs = image.numpy(), np.array([-1])
    compiled = copy.deepcopy(detector)
    compile_detector(compiled, "default")
    return {
        "eager": lambda: detector.assess_images(image, None),
        "compiled": lambda: compiled.assess_images(image, None),
        **{name: lambda run=run: run(*inputs) for name, run in runs.items()},
        "old default, eager": lambda: old.assess_images(image, None),
        "one step": lambda: detector.reconstruct(features),
        "ten steps": lambda: ten.reconstruct(features),
        **{f"{name}, backbone": run for name, run in backbones(detector, image).items()},
    }
