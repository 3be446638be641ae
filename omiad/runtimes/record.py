"""What an exported file says about its model, as JSON."""

import json
from typing import Any, Literal, TypedDict

from omiad.errors import InputError
from omiad.names import one_line
from omiad.schema import conform

EXPORT_FORMAT = 1
"""Number of the layout of the record and of the graph's inputs and outputs."""

RECORD_KEY = "omiad"
"""Name of the record in the metadata of a file."""

ExportPrecision = Literal["float32", "float16", "bfloat16", "int8"]


class ProductRecord(TypedDict):
    """A product: its thresholds, and the scores of its normal photographs."""

    name: str
    threshold: float
    peak_threshold: float
    images: list[float]
    peaks: list[float]


class Parity(TypedDict):
    """How much an export differed from the model when it was made, over some photographs."""

    photographs: int
    score: float
    anomaly_map: float
    runtime: str


class ExportRecord(TypedDict):
    """Everything about a model but its graph.

    Entries:
        format: `EXPORT_FORMAT`.
        version: Version of omiad that wrote the file.
        precision: Precision of the graph.
        image_size: Side of the canvas in pixels.
        white_level: Value of 16-bit photographs that becomes white.
        decisions: Decisions by their numbers.
        products: Products by their numbers.
        false_alarms: Rate that the thresholds keep; None for the lowest of each product.
        map_range: Values between which anomaly maps are drawn.
        protocol: How a score is made: backbone, grid, steps and scoring.
        weights_hash: SHA-256 of all weights of the model.
        parity: How much the export differed from the model.
    """

    format: int
    version: str
    precision: ExportPrecision
    image_size: int
    white_level: int
    decisions: list[str]
    products: list[ProductRecord]
    false_alarms: float | None
    map_range: list[float]
    protocol: dict[str, Any]
    weights_hash: str
    parity: Parity | None


def read_record(text: str, *, name: str) -> ExportRecord:
    """Return the record of the export called `name`.

    Raises:
        InputError: If another version wrote it, or if it is damaged.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its record is not JSON. Export the model again.") from error
    record = conform(value, dict[str, Any], where=f"{name}: {RECORD_KEY}")
    if record.get("format") != EXPORT_FORMAT:
        version = one_line(str(record.get("version", "of unknown version"))[:40])
        raise InputError(
            f"{name} was exported by omiad {version} in another format. Use that version of omiad, "
            f"or export the model again."
        )
    checked: ExportRecord = conform(record, ExportRecord, where=f"{name}: {RECORD_KEY}")
    _check_values(checked, name)
    return checked


def _check_values(record: ExportRecord, name: str) -> None:
    """Refuse values that contradict each other, or could not be used."""
    products = record["products"]
    names = [product["name"] for product in products]
    is_whole = (
        len(set(names)) == len(names)
        and all(len(p["images"]) == len(p["peaks"]) > 0 for p in products)
        and 1 <= record["image_size"] <= 8192
        and 1 <= record["white_level"] <= 65_535
        and len(record["map_range"]) == 2
    )
    if not is_whole:
        raise InputError(
            f"{name}: the entries of its record contradict each other. The file was changed; "
            f"export the model again."
        )
