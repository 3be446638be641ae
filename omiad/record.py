"""The content of results.json, and reading it: nothing is used that has not the right form."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from omiad.errors import InputError, MissingInputError
from omiad.metrics import METRICS
from omiad.metrics.ranking import Figures
from omiad.names import check_name, one_line
from omiad.protocols import PROTOCOLS, Protocol
from omiad.schema import conform

LARGEST = 2**26
"""Most bytes of a results.json."""

MEND = "Copy the run folder again, or test again with this version of omiad."

ROUNDING = 1e-9
"""How far a sum of fractions may lie outside of 0..1."""


class Further(TypedDict):
    """The figures besides the seven."""

    categories: dict[str, Figures]
    mean: Figures


class Intervals(TypedDict):
    """Both ends of the interval of each figure."""

    level: float
    num: int
    seed: int
    categories: dict[str, dict[str, list[float]]]
    mean: dict[str, list[float]]


class Latency(TypedDict):
    """How long an image takes."""

    ms_per_image: float
    batch_size: int
    num_batches: int
    of: str


class Weights(TypedDict, total=False):
    """Hashes of weights, by which a student finds its teacher."""

    model: str
    teacher: str


class Model(TypedDict, total=False):
    """What was tested; a model has further settings."""

    kind: str
    maps: str
    scores: str | None
    backbone: str
    image_size: int
    white_level: int
    num_steps: int
    t_init: int


class Digests(TypedDict):
    """SHA-256 of the files beside results.json, None where there is none."""

    images: str
    gallery: str | None


class Changes(TypedDict, total=False):
    """Fields of a protocol that differ from its preset, see `Protocol`."""

    input_size: int
    map_size: int
    crop: int | None
    mask_resize: Literal["nearest", "bilinear"]
    mask_threshold: float
    blur_sigma: float
    blur_kernel: int | None
    pool_size: int
    top_fraction: float
    upsampling: str


class Decided(TypedDict):
    """What the threshold of a product decides about its test images, at one false-alarm rate."""

    rate: float
    threshold: float
    false_alarms: int
    num_good: int
    found: int
    num_defective: int


class Decisions(TypedDict, total=False):
    """What only a test of a model with thresholds has, by the names of its products."""

    decisions: dict[str, list[Decided]]


class Record(Decisions):
    """What results.json holds; figures are fractions of 1, None where undefined.

    `vanished` are the numbers of masks and regions of each category that are smaller than a pixel
    of the resized mask. `views` are the figures of each view of Real-IAD. `checkpoint`,
    `selected_on`, `seed`, `weights` and `latency` are None for the maps of another method.
    """

    dataset: str
    root: str
    model: Model
    checkpoint: str | None
    selected_on: str | None
    seed: int | None
    weights: Weights | None
    latency: Latency | None
    protocol: Literal["uniad", "ader", "dinomaly"]
    protocol_steps: dict[str, str]
    protocol_changes: Changes
    estimator: Literal["exact", "source"]
    map_range: list[float]
    categories: dict[str, Figures]
    mean: Figures
    n: dict[str, int]
    notes: dict[str, str]
    vanished: dict[str, dict[str, int]]
    further: Further
    bounds: dict[str, dict[str, float]]
    intervals: Intervals | None
    views: dict[str, dict[str, Figures]] | None
    hardware: str
    versions: dict[str, str]
    digests: Digests


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If the file is damaged, comes from another version, or is something else.
    """
    if not path.is_file():
        raise MissingInputError(
            f"No results at '{path}'. `omiad test` and `omiad evaluate` write results.json."
        )
    record: dict[str, Any] = conform(_plain_data(path), Record, where=f"'{path}'")
    if fault := next(_faults(record, path), None):
        raise InputError(f"'{path}' holds no results of a test: {fault}. {MEND}")
    return record


def _plain_data(path: Path) -> Any:
    """Return what a JSON file holds, without numbers that JSON does not know."""
    if path.stat().st_size > LARGEST:
        raise InputError(f"'{path}' has more than {LARGEST} bytes. Give a results.json.")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is not JSON ({error}). Give a results.json.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _faults(record: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Return what is wrong among entries of the right type."""
    categories, (low, *high) = record["categories"], record["map_range"] or [0]
    for name in categories:
        check_name(name, kind="category", where=path)
    if not categories or record["further"]["categories"].keys() != categories.keys():
        yield "it has no category, or different ones in categories and further"
    for key in ("bounds", "notes", "vanished", "views", "intervals", "decisions"):
        table = record.get(key) or {}
        table = table.get("categories", {}) if key == "intervals" else table
        if not table.keys() <= categories.keys():
            yield f"its {key} are of other categories"
    if len(high) != 1 or low > high[0]:
        yield "map_range has not two ascending scores"
    if record["latency"] and record["latency"]["ms_per_image"] <= 0:
        yield "the time per image is not above 0"
    if any(part < 0 for row in record["vanished"].values() for part in row.values()):
        yield "a number of vanished masks is negative"
    for row in (each for rows in record.get("decisions", {}).values() for each in rows):
        counts = (row["false_alarms"], row["num_good"]), (row["found"], row["num_defective"])
        if not 0 < row["rate"] < 1 or any(not 0 <= part <= whole for part, whole in counts):
            yield "a decision has an impossible rate or number"
    yield from _impossible_figures(record)
    with suppress(TypeError, InputError):
        protocol_of(record)
        return
    yield "its protocol is impossible"


def _impossible_figures(record: Mapping[str, Any]) -> Iterator[str]:
    """Return which figures are missing or not a fraction of 1."""
    seven = [*record["categories"].values(), record["mean"]]
    for row in seven:
        if missing := [key for key in (*METRICS, "mad") if key not in row]:
            yield f"a row has no {', '.join(missing)}"
    further = [*record["further"]["categories"].values(), record["further"]["mean"]]
    views = [row for of in (record["views"] or {}).values() for row in of.values()]
    for row in (*seven, *further, *views, *record["bounds"].values()):
        for key, figure in row.items():
            if figure is not None and not -ROUNDING <= figure <= 1 + ROUNDING:
                yield f"{one_line(key)} is {figure}, not a fraction of 1"
    intervals = record["intervals"] or {"categories": {}, "mean": {}}
    for row in (*intervals["categories"].values(), intervals["mean"]):
        for key, ends in row.items():
            if len(ends) != 2 or not -ROUNDING <= ends[0] <= ends[1] <= 1 + ROUNDING:
                yield f"the interval of {one_line(key)} has not two ascending ends"


def protocol_of(record: Mapping[str, Any]) -> Protocol:
    """Return the protocol that a test was measured with."""
    return replace(PROTOCOLS[record["protocol"]], **record["protocol_changes"])


def refuse_other_measures(records: Mapping[Path, Mapping[str, Any]]) -> None:
    """Refuse runs, by the path of their results.json, that were measured in different ways."""
    (path, first), *others = ((path, measure(record)) for path, record in records.items())
    for other_path, other in others:
        for key, second in other.items():
            if first[key] != second:
                raise InputError(
                    f"'{path}' was measured with {key} {first[key]}, '{other_path}' with {second}. "
                    f"Evaluate both with the same options."
                )


def measure(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal in runs that are compared.

    Upsampling is left out: it is a part of the method.
    """
    changes = record["protocol_changes"].items()
    return {
        "protocol": record["protocol"],
        "protocol_changes": {key: value for key, value in changes if key != "upsampling"},
        "estimator": record["estimator"],
    }
