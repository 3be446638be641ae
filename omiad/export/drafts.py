"""A traced graph in the format of each runtime, before it is compared and written."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from omiad.errors import InputError
from omiad.export.quantization import Images, quantized
from omiad.names import one_line
from omiad.runtimes import NAMES, SESSIONS, ExportPrecision, Outputs, Session, required
from omiad.runtimes.record import RECORD_KEY
from omiad.runtimes.sessions import Run

Format = Literal["onnx", "openvino", "torch"]

_LARGE = 1024
"""Constants with at least so many values are stored in half precision, if that is asked for."""


class Draft(Protocol):
    """A graph in one format."""

    def content(self, record: str) -> tuple[bytes, bytes]:
        """Return the file and the file beside it, which may be empty, with a record."""

    def session(self) -> Session:
        """Return what runs the graph."""


class OnnxDraft:
    """A graph for ONNX Runtime."""

    def __init__(self, program: ExportedProgram, precision: ExportPrecision, given: Images) -> None:
        self.program = onnx_program(program, extra="onnx")
        self.model = self.program.model_proto
        if precision == "float16":
            store_in_half(self.model)
        elif precision == "int8":
            self.model = quantized(self.model, given)

    def content(self, record: str) -> tuple[bytes, bytes]:
        """Return the file; protobuf reads two messages after one another as one."""
        onnx = required("onnx", extra="onnx")
        metadata = onnx.ModelProto()
        metadata.metadata_props.add(key=RECORD_KEY, value=record)
        return self.model.SerializeToString() + metadata.SerializeToString(), b""

    def session(self) -> Session:
        """Return what runs the graph."""
        return SESSIONS[".onnx"](*self.content(""))


class OpenVINODraft:
    """A graph for OpenVINO, which reads that of ONNX."""

    def __init__(self, program: ExportedProgram, precision: ExportPrecision, given: Images) -> None:
        self.program = onnx_program(program, extra="openvino")
        self._openvino = required("openvino", extra="openvino")
        self._is_half = precision == "float16"
        model = self.program.model_proto
        if precision == "int8":
            model = quantized(model, given)
        self.model = self._openvino.Core().read_model(model.SerializeToString())

    def content(self, record: str) -> tuple[bytes, bytes]:
        """Return the file of the graph and that of its weights."""
        self.model.set_rt_info(record, [RECORD_KEY])
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            self._openvino.save_model(self.model, path, compress_to_fp16=self._is_half)
            return path.read_bytes(), path.with_suffix(".bin").read_bytes()

    def session(self) -> Session:
        """Return what runs the graph."""
        return SESSIONS[".xml"](*self.content(""))


class TorchDraft:
    """A graph of torch.export."""

    def __init__(self, program: ExportedProgram, *_: object) -> None:
        self.program = program

    def content(self, record: str) -> tuple[bytes, bytes]:
        """Return the file."""
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer, extra_files={f"{RECORD_KEY}.json": record})
        return buffer.getvalue(), b""

    def session(self) -> Session:
        """Return what runs the graph, loaded anew."""
        module = torch.export.load(io.BytesIO(self.content("")[0])).module()

        @torch.no_grad()
        def run(images: NDArray[np.uint8], given: NDArray[np.int64]) -> Outputs:
            found = module(torch.from_numpy(images), torch.from_numpy(given))
            return {name: x.numpy() for name, x in zip(NAMES, found, strict=True)}

        return Session("", lambda _: run)


class Form(NamedTuple):
    """How a format is written.

    Attributes:
        suffix: Suffix of its file.
        precisions: Precisions that it can have.
        draft: Makes a graph in the format.
    """

    suffix: str
    precisions: tuple[ExportPrecision, ...]
    draft: Callable[[ExportedProgram, ExportPrecision, Images], Draft]


FORMS: dict[Format, Form] = {
    "onnx": Form(".onnx", ("float32", "float16", "int8"), OnnxDraft),
    "openvino": Form(".xml", ("float32", "float16", "bfloat16", "int8"), OpenVINODraft),
    "torch": Form(".pt2", ("float32",), TorchDraft),
}


def draft_of(
    program: ExportedProgram, name: Format, precision: ExportPrecision, given: Images = ()
) -> tuple[Draft, Run]:
    """Return a traced graph in a format, and the function that runs it.

    Args:
        program: The graph.
        name: The format.
        precision: The precision.
        given: Photographs from which int8 takes the ranges of values.

    Raises:
        MissingInputError: If a package is missing.
        InputError: If the format has no such operator, or int8 finds nothing to quantize.
    """
    try:
        draft = FORMS[name].draft(program, precision, given)
        return draft, draft.session().start(precision)
    except InputError:
        raise
    except Exception as error:  # each library has its own exceptions
        cause: BaseException = error
        while cause.__cause__ is not None:  # the first one names the operator
            cause = cause.__cause__
        raise InputError(
            f"The model cannot be written for {name} ({one_line(str(cause))[:300]}). Choose "
            f"another --format, or use the checkpoint."
        ) from error


def onnx_program(program: ExportedProgram, *, extra: str) -> Any:
    """Return a traced graph as torch's program of ONNX.

    Raises:
        MissingInputError: If a package of the extra is missing.
    """
    for module in ("onnx", "onnxscript"):
        required(module, extra=extra)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about torch's own conversion
        return torch.onnx.export(
            program,
            (),
            dynamo=True,
            input_names=["images", "given"],
            output_names=list(NAMES),
            verbose=False,
        )


def store_in_half(model: Any) -> None:
    """Store large constants of an ONNX model in half precision; all arithmetic stays float32."""
    onnx = required("onnx", extra="onnx")
    casts = []
    for constant in model.graph.initializer:
        array = onnx.numpy_helper.to_array(constant)
        if array.dtype == np.float32 and array.size >= _LARGE:
            name, half = constant.name, f"{constant.name}.half"
            with np.errstate(over="ignore"):  # the comparison notices what became infinite
                halved = array.astype(np.float16)
            constant.CopyFrom(onnx.numpy_helper.from_array(halved, half))
            casts.append(onnx.helper.make_node("Cast", [half], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # a node comes after those that it uses
    del model.graph.node[:]
    model.graph.node.extend(nodes)
