"""results.json, and next to it the scores and pixel counts of each image."""

import json
import platform
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omiad.errors import BROKEN_ARCHIVE, InputError, MissingInputError
from omiad.files import write_whole
from omiad.metrics import Results
from omiad.metrics.bootstrap import LEVEL, ScoredImages, deviations, draw, interval, means
from omiad.metrics.images import view_figures
from omiad.metrics.ranking import Array
from omiad.protocols import Protocol
from omiad.types import Sample
from omiad.version import __version__


@dataclass(frozen=True)
class Bootstrap:
    """The number of bootstrap draws for the intervals (0 gives none), and their seed."""

    num: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse negative numbers."""
        if min(self.num, self.seed) < 0:
            raise InputError(
                f"--num_resamples and --seed must not be negative, but got {self.num} and "
                f"{self.seed}."
            )


def write_results(
    path: Path,
    results: Results,
    samples: Sequence[Sample],
    *,
    root: Path,
    protocol: Protocol,
    dataset: str,
    device: torch.device,
    bootstrap: Bootstrap = Bootstrap(),
    **about: Any,
) -> None:
    """Write results.json and the images next to it: figures as fractions of 1, or null.

    `samples` are the test images by their index, and `about` are further entries such as the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} {'thread' if threads == 1 else 'threads'}"
    changes, views = {}, {}  # of each category; one category at a time is in memory
    with zipfile.ZipFile(images_path(path), "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (category, (index, *columns)) in enumerate(results.images.items()):
            shown = [samples[i] for i in index.tolist()]
            names = np.array([sample.name(root) for sample in shown], np.str_)
            images = ScoredImages._make([names, *columns, results.counts[category].read()])
            for column, array in images._asdict().items():
                with archive.open(f"{category}/{column}.npy", "w", force_zip64=True) as file:
                    np.save(file, array)
            views[category] = view_figures(shown, images.score, images.is_anomalous)
            if bootstrap.num:
                rng = np.random.default_rng([bootstrap.seed, number])
                times = draw(images.is_anomalous, num=bootstrap.num, rng=rng)
                changes[category] = deviations(images, times)
    record = {
        "dataset": dataset,
        "root": str(root.resolve()),
        **protocol.as_record(),
        **about,
        **results.as_record(),
        "intervals": _intervals(results, changes, bootstrap) if bootstrap.num else None,
        "views": {category: row for category, row in views.items() if row} or None,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "versions": {"omiad": __version__, "torch": torch.__version__},
    }
    write_whole(path, json.dumps(record, indent=2) + "\n")


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json, and refuse any other file."""
    if not path.is_file():
        raise MissingInputError(
            f"No results at '{path}'. `omiad test` and `omiad evaluate` write results.json."
        )
    try:
        record = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON ({error}). Give a results.json.") from error
    if not (
        isinstance(record, dict)
        and "protocol" in record
        and all(isinstance(record.get(key), dict) for key in ("categories", "mean"))
    ):
        raise InputError(f"'{path}' holds no results of omiad. Give a results.json.")
    return record


def refuse_other_measures(records: Mapping[Path, dict[str, Any]]) -> None:
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
    changes = record.get("protocol_changes") or {}
    return {
        "protocol": record["protocol"],
        "protocol_changes": {key: value for key, value in changes.items() if key != "upsampling"},
        "estimator": record.get("estimator", "exact"),
    }


def images_path(results: Path) -> Path:
    """Return the path of the images of a results.json."""
    return results.with_suffix(".images.npz")


def read_images(path: Path) -> Iterator[tuple[str, ScoredImages]]:
    """Read the images of one category after another, and refuse a broken file."""
    if not path.is_file():
        raise MissingInputError(
            f"No '{path}'. It is written next to each results.json; keep the two together."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for category in dict.fromkeys(key.rpartition("/")[0] for key in archive.files):
                columns = [archive[f"{category}/{name}"] for name in ScoredImages._fields]
                yield category, ScoredImages(*columns)
    except BROKEN_ARCHIVE as error:
        raise InputError(
            f"'{path}' cannot be read as the images of a test ({error}). Copy it again, or test "
            f"again."
        ) from error


def _intervals(
    results: Results, changes: dict[str, dict[str, Array]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return the interval of each of the seven metrics, for each category and the mean."""
    figures = {**results.categories, "mean": results.mean}
    rows = {
        name: {
            key: np.clip(interval(figure, row[key]), 0, 1).tolist()
            for key in row
            if (figure := figures[name][key]) is not None
        }
        for name, row in means(changes).items()
    }
    mean = rows.pop("mean")
    return {"level": LEVEL, **asdict(bootstrap), "categories": rows, "mean": mean}
