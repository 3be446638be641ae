"""Which operator of a graph computes something else in its runtime than in PyTorch."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import Interpreter, Node

from omiad.export.drafts import Draft, OnnxDraft, OpenVINODraft
from omiad.runtimes import NAMES, required

Values = dict[str, NDArray[Any]]

_TOLERANCE = 1e-3
"""Relative difference of a value, above what rounding explains within the graph."""


def blamed(draft: Draft, image: torch.Tensor) -> str | None:
    """Return the first operator whose output differs for a photograph (3, S, S), if any is found.

    A runtime joins operators, so the result is one of those that were joined, and nothing is found
    in a graph whose values have other names than in PyTorch.
    """
    if not isinstance(draft, (OnnxDraft, OpenVINODraft)):
        return None
    inputs = (image[None], torch.tensor([-1]))
    tracer = _Recorder(draft.program.exported_program.module())
    with torch.no_grad():
        outputs = tracer.run(*inputs)
    expected = tracer.values | {n: x.numpy() for n, x in zip(NAMES, outputs, strict=True)}
    arrays = {"images": inputs[0].numpy(), "given": inputs[1].numpy()}
    values_of = _onnx_values if isinstance(draft, OnnxDraft) else _openvino_values
    for operator, name, value in values_of(draft.model, expected, arrays):
        wanted = expected[name]
        if value.shape == wanted.shape and not _are_close(value, wanted):
            return f"{operator} ('{name}')"
    return None


class _Recorder(Interpreter):
    """Runs a traced graph, and keeps each tensor of floats by its name."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        self.values: Values = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            self.values[n.name] = value.numpy()
        return value


def _onnx_values(model: Any, expected: Values, arrays: Values) -> Any:
    """Return (operator, name, value) of the values of an ONNX model in ONNX Runtime, in order."""
    onnx, runtime = (required(name, extra="onnx") for name in ("onnx", "onnxruntime"))
    model = onnx.ModelProto.FromString(model.SerializeToString())
    inner = {o: node.op_type for node in model.graph.node for o in node.output if o in expected}
    known = {output.name for output in model.graph.output}
    for name in inner.keys() - known:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found = session.run(list(inner), arrays)
    return zip(inner.values(), inner, found, strict=True)


def _openvino_values(model: Any, expected: Values, arrays: Values) -> Any:
    """Return (operator, name, value) of the values of a model in OpenVINO, in order."""
    core = required("openvino", extra="openvino").Core()
    model, inner = model.clone(), dict[str, str]()
    for node in model.get_ordered_ops():
        for output in node.outputs():
            if names := output.get_names() & expected.keys():
                inner.setdefault(min(names), node.get_type_name())  # a result has the same name
    outputs = {name for output in model.outputs for name in output.get_names()}
    for name in inner.keys() - outputs:
        model.add_outputs(name)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(arrays)
    return [(kind, name, np.asarray(found[name])) for name, kind in inner.items()]


def _are_close(value: NDArray[Any], wanted: NDArray[Any]) -> bool:
    finite = np.abs(wanted[np.isfinite(wanted)])
    scale = float(finite.max(initial=0)) or 1.0
    return np.allclose(value, wanted, rtol=0, atol=_TOLERANCE * scale, equal_nan=True)
