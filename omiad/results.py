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
from omiad.protocols import Protocol
from omiad.types import Sample
from omiad.version import __version__


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals are drawn.

    Attributes:
        num: Draws of the images; 0 gives no intervals.
        seed: Seed of the draws.
    """

    num: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: If one is negative.
        """
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
    estimator: str = "exact",
    **about: Any,
) -> None:
    """Write results.json: figures as fractions of 1, null if a figure is undefined.

    Args:
        path: The file; the images are written next to it, see `images_path`.
        results: All figures.
        samples: The test images, by their index.
        root: Folder of the data set.
        protocol: How maps, masks and image scores were prepared.
        dataset: Name of the data set.
        device: Device of the model.
        bootstrap: How the intervals are drawn.
        estimator: exact, or source for the estimators of the protocol's source.
        about: Further entries, such as the model.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_images(images_path(path), results, [sample.name(root) for sample in samples])
    record = {
        "dataset": dataset,
        "root": str(root.resolve()),
        **protocol.as_record(),
        "estimator": estimator,
        **about,
        **results.as_record(),
        "intervals": _intervals(results, read_images(images_path(path)), bootstrap),
        "views": _views(results, samples),
        "hardware": _hardware(device),
        "versions": {"omiad": __version__, "torch": torch.__version__},
    }
    write_whole(path, json.dumps(record, indent=2) + "\n")


def read_results(path: Path) -> dict[str, Any]:
    """Read a results.json.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If it holds something else.
    """
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
    """Check that runs can be compared.

    Args:
        records: Content of each results.json, by its path.

    Raises:
        InputError: If the protocol, its changes or the estimator differ.
    """
    (path, record), *others = records.items()
    first = measure(record)
    for other_path, other in others:
        for key, second in measure(other).items():
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


def write_images(path: Path, results: Results, names: Sequence[str]) -> None:
    """Write the images of all categories, one category in memory at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for category, images in results.images.items():
            columns = {
                "name": np.array([names[i] for i in images.index.tolist()], dtype=np.str_),
                "score": images.score,
                "is_anomalous": images.is_anomalous,
                "has_mask": images.has_mask,
                "counts": results.counts[category].read().counts,
            }
            for column, array in columns.items():
                with archive.open(f"{category}/{column}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def read_images(path: Path) -> Iterator[tuple[str, ScoredImages]]:
    """Read the images of one category after another.

    Raises:
        MissingInputError: If there is no such file.
        InputError: If it is broken.
    """
    if not path.is_file():
        raise MissingInputError(
            f"No '{path}'. It is written next to each results.json; keep the two together."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            categories = list(dict.fromkeys(key.rpartition("/")[0] for key in archive.files))
        for category in categories:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                columns = [archive[f"{category}/{name}"] for name in ScoredImages._fields]
            yield category, ScoredImages(*columns)
    except BROKEN_ARCHIVE as error:
        raise InputError(
            f"'{path}' cannot be read as the images of a test ({error}). Copy it again, or test "
            f"again."
        ) from error


def _intervals(
    results: Results, categories: Iterator[tuple[str, ScoredImages]], bootstrap: Bootstrap
) -> dict[str, Any] | None:
    """Return the interval of each of the seven metrics, for each category and the mean."""
    if not bootstrap.num:
        return None
    moved = {}
    for number, (category, images) in enumerate(categories):
        rng = np.random.default_rng([bootstrap.seed, number])
        moved[category] = deviations(images, draw(images.is_anomalous, num=bootstrap.num, rng=rng))
    figures = {**results.categories, "mean": results.mean}
    rows = {
        name: {
            key: np.clip(interval(figure, row[key]), 0, 1).tolist()
            for key in row
            if (figure := figures[name][key]) is not None
        }
        for name, row in means(moved).items()
    }
    mean = rows.pop("mean")
    return {"level": LEVEL, **asdict(bootstrap), "categories": rows, "mean": mean}


def _views(results: Results, samples: Sequence[Sample]) -> dict[str, Any] | None:
    """Return image figures by sample and by view, None if no image is one of several views."""
    rows = {
        category: view_figures(
            [samples[i] for i in images.index.tolist()], images.score, images.is_anomalous
        )
        for category, images in results.images.items()
    }
    return {category: row for category, row in rows.items() if row} or None


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{platform.machine()} CPU, {count} {'thread' if count == 1 else 'threads'}"
