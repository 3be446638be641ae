"""`omiad export`: one file that other runtimes run, refused where it differs from the model."""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from omiad.detector import Detector
from omiad.errors import InputError
from omiad.export.blame import blamed
from omiad.export.comparison import (
    TOLERANCE,
    Comparison,
    Photograph,
    compare,
    read_photographs,
    synthetic_photographs,
)
from omiad.export.drafts import FORMS, Draft, Form, Format, draft_of
from omiad.export.graph import trace
from omiad.features import weights_hash
from omiad.files import new_file, write_whole
from omiad.inspection import DECISIONS
from omiad.prediction.photographs import find_photographs
from omiad.runtimes import EXPORT_FORMAT, ExportPrecision, ExportRecord, ProductRecord
from omiad.runtimes.record import Parity
from omiad.runtimes.seal import SEALS, sealed
from omiad.runtimes.sessions import Run
from omiad.version import __version__

logger = logging.getLogger(__name__)

_NUM_EXAMPLES = 64
"""Most photographs from which int8 takes the ranges of values, spread over those that are given."""

_RUNTIMES: dict[Format, str] = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch"}


def export(
    model: str,
    *,
    format: Format = "onnx",  # noqa: A002  the name of the option
    precision: ExportPrecision = "float32",
    photos: list[str] | None = None,
    out: str | None = None,
    trust: str | None = None,
) -> Path:
    """Write a model as one graph, from photographs to decisions, for another runtime.

    The graph takes 8-bit photographs of the model's size, any number at once, and returns the
    score, p-value, decision, product and anomaly map of each. Before it is written, photographs go
    through the model and through the graph. A graph is refused if a decision is another one, or if
    a score differs by more than 1e-4 of its value at full precision.

    Args:
        model: Checkpoint; no other file is needed.
        format: onnx for ONNX Runtime, openvino, or torch for a graph of torch.export.
        precision: float32; float16, which stores the weights in half of the space and computes in
            float32; bfloat16, in which OpenVINO computes faster on processors that have it; or
            int8, in which the denoising network computes its convolutions, and nothing else does.
            Below float32 the difference is printed, and only decisions are compared.
        photos: Photographs and folders to compare by; by default synthetic ones. Below float32
            give those that the thresholds were set with.
        out: File to write, which must not exist yet; by default beside the checkpoint.
        trust: Class path of a network of your own that the checkpoint names; it is imported.

    Returns:
        The file.

    Raises:
        InputError: If the model cannot be exported in this form, a package is missing, the file
            exists, or the graph differs from the model.
    """
    form = _form(format, precision, photos)
    found = find_photographs(photos) if photos else []
    path = Path(model).with_suffix(form.suffix) if out is None else Path(out)
    if path.suffix != form.suffix:
        raise InputError(f"--out '{path}' must end in {form.suffix} for --format {format}.")
    detector = Detector.load(model, trust=trust)
    if not isinstance(detector, Detector):
        raise InputError(f"'{model}' is an export already. Give the checkpoint.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as claims:
        files = [path, path.with_suffix(".bin")] if form.suffix == ".xml" else [path]
        for file in files:
            claims.enter_context(new_file(file, option="--out"))
        every = len(found) // _NUM_EXAMPLES + 1
        examples = (each.pixels.numpy() for each in read_photographs(detector, found[::every]))
        draft, run = draft_of(trace(detector), format, precision, examples)
        photographs = (
            read_photographs(detector, found) if found else synthetic_photographs(detector)
        )
        comparison = _compared(detector, draft, run, precision, photographs)
        parity = _parity(comparison, _RUNTIMES[format])
        content, beside = draft.content(json.dumps(_record(detector, precision, parity)))
        if beside:
            write_whole(files[1], beside)
        if form.suffix in SEALS:
            content = sealed(content, form.suffix, beside=beside)
        write_whole(path, content)
    logger.info(
        "'%s' agrees with the model on %d photographs: scores within %.1e, maps within %.1e",
        *(path, comparison.compared, comparison.score, comparison.anomaly_map),
    )
    return path


def _form(name: Format, precision: ExportPrecision, photos: list[str] | None) -> Form:
    """Return a format, if it has the precision and there are photographs to judge it by."""
    if name not in get_args(Format):
        raise InputError(f"--format must be one of {', '.join(FORMS)}, but got '{name}'.")
    form = FORMS[name]
    if precision not in form.precisions:
        raise InputError(
            f"--format {name} takes --precision {' or '.join(form.precisions)}, but got "
            f"'{precision}'."
        )
    if precision != "float32" and not photos:
        raise InputError(
            f"--precision {precision} is compared by photographs. Give --photos with the normal "
            f"photographs that the thresholds were set with."
        )
    return form


def _compared(
    detector: Detector,
    draft: Draft,
    run: Run,
    precision: ExportPrecision,
    photographs: Iterator[Photograph],
) -> Comparison:
    """Compare a graph with its model.

    Raises:
        InputError: If they differ.
    """
    tolerance = TOLERANCE if precision == "float32" else float("inf")
    comparison = compare(detector, run, photographs, tolerance=tolerance)
    if comparison.unlike:
        (name, pixels, _), reason = comparison.unlike[0]
        operator = blamed(draft, pixels)
        first = f" The first operator that differs is {operator}." if operator else ""
        mend = (
            "Export in float32." if precision != "float32" else "Use the checkpoint, and report it."
        )
        raise InputError(
            f"The export differs from the model on {len(comparison.unlike)} of "
            f"{comparison.compared} photographs: {reason} for {name}.{first} Nothing was written. "
            f"{mend}"
        )
    return comparison


def _parity(comparison: Comparison, runtime: str) -> Parity:
    return Parity(
        photographs=comparison.compared,
        score=comparison.score,
        anomaly_map=comparison.anomaly_map,
        runtime=f"{runtime} {version(runtime)}",
    )


def _record(detector: Detector, precision: ExportPrecision, parity: Parity) -> ExportRecord:
    """Return what the file says about its model."""
    products, spec = detector.products, detector.spec
    limits = products.thresholds(detector.false_alarms)
    protocol = ("kind", "t_init", "num_steps", "num_noise_draws", "seed", "extractor", "scoring")
    return ExportRecord(
        format=EXPORT_FORMAT,
        version=__version__,
        precision=precision,
        image_size=detector.extractor.image_size,
        white_level=detector.extractor.white_level,
        decisions=list(DECISIONS),
        products=[
            ProductRecord(
                name=name,
                threshold=limits[number].image,
                peak_threshold=limits[number].peak,
                images=products.normal(number).image.tolist(),
                peaks=products.normal(number).peak.tolist(),
            )
            for number, name in enumerate(products.names)
        ],
        false_alarms=detector.false_alarms,
        map_range=detector.map_range.tolist(),
        protocol={name: spec[name] for name in protocol},
        weights_hash=weights_hash(detector),
        parity=parity,
    )
