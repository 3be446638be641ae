"""ONNX Runtime and OpenVINO: the file of an export becomes a function of arrays."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from omiad.errors import InputError, MissingInputError
from omiad.files import check_regular
from omiad.names import one_line
from omiad.runtimes.record import RECORD_KEY, ExportRecord, read_record
from omiad.runtimes.seal import check_seal

NAMES = ("score", "p_value", "decision", "product", "anomaly_map")
"""Outputs of a graph, each with the photographs as its first axis; inputs are images and given."""

Outputs = dict[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint8], NDArray[np.int64]], Outputs]
"""Takes photographs (B, 3, S, S) and the numbers of the products they show (B,), -1 if unknown."""


class Session(NamedTuple):
    """A graph that can be run.

    Attributes:
        record: What the file says about its model, as JSON.
        start: Prepares the graph for a precision, and returns the function that runs it.
    """

    record: str
    start: Callable[[str], Run]


def onnx_session(content: bytes, _: bytes) -> Session:
    """Return the session of an ONNX file in ONNX Runtime, on the CPU with torch's threads."""
    runtime = required("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: NDArray[np.uint8], given: NDArray[np.int64]) -> Outputs:
        found = session.run(list(NAMES), {"images": images, "given": given})
        return dict(zip(NAMES, found, strict=True))

    return Session(session.get_modelmeta().custom_metadata_map.get(RECORD_KEY, ""), lambda _: run)


def openvino_session(content: bytes, weights: bytes) -> Session:
    """Return the session of an OpenVINO model, on the CPU with torch's threads."""
    core = required("openvino", extra="openvino").Core()
    model = core.read_model(model=content, weights=weights)

    def start(precision: str) -> Run:
        hints = {
            # By default OpenVINO takes bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        compiled = core.compile_model(model, "CPU", hints)

        def run(images: NDArray[np.uint8], given: NDArray[np.int64]) -> Outputs:
            found = compiled({"images": images, "given": given})
            return {name: found[name] for name in NAMES}

        return run

    known = model.has_rt_info([RECORD_KEY])
    return Session(model.get_rt_info([RECORD_KEY]).astype(str) if known else "", start)


SESSIONS: Mapping[str, Callable[[bytes, bytes], Session]] = {
    ".onnx": onnx_session,
    ".xml": openvino_session,
}
"""How the file of an export is run, by its suffix."""


def open_session(path: Path) -> tuple[ExportRecord, Run]:
    """Return the record of an export, and the function that runs it.

    Raises:
        MissingInputError: If the file, the file of its weights or its runtime is missing.
        InputError: If the file is damaged, is no export, or comes from another version.
    """
    name = f"'{one_line(str(path))}'"
    check_regular(path)
    content, weights = path.read_bytes(), b""
    if path.suffix == ".xml":
        check_regular(beside := path.with_suffix(".bin"))
        weights = beside.read_bytes()
    check_seal(content, path.suffix, beside=weights, name=name)
    try:
        session = SESSIONS[path.suffix](content, weights)
        record = read_record(session.record, name=name)
        return record, session.start(record["precision"])
    except InputError:
        raise
    except Exception as error:  # each runtime has its own exceptions
        raise InputError(
            f"{name} cannot be opened ({one_line(str(error))[:300]}). Export the model again, with "
            f"the version of the runtime that is installed here."
        ) from error


def required(module: str, *, extra: str) -> Any:
    """Import a package that only some users need.

    Raises:
        MissingInputError: If it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingInputError(
            f"The package {module} is missing. Run `pip install {module}`, or install omiad with "
            f"its extra '{extra}'."
        ) from error
