"""results.json, and next to it the scores and pixel counts of each image."""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omiad.arrays import Column, read_groups, write_groups
from omiad.errors import InputError, MissingInputError
from omiad.files import digest, write_whole
from omiad.metrics import Results
from omiad.metrics.bootstrap import LEVEL, ScoredImages, deviations, draw, interval, means
from omiad.metrics.images import view_figures
from omiad.metrics.ranking import Array, Figures
from omiad.names import is_below
from omiad.protocols import Protocol
from omiad.record import MEND
from omiad.types import Sample
from omiad.version import __version__

_COLUMNS = {
    "name": Column("U", ("N",)),
    "score": Column("f8", ("N",)),
    "is_anomalous": Column("?", ("N",)),
    "has_mask": Column("?", ("N",)),
    "counts": Column("f4", ("N", 3, "K")),
}
"""The form of `ScoredImages` on disk."""


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
    gallery: Path | None = None,
    **about: Any,
) -> None:
    """Write the images of a test, and then results.json, which makes the test whole.

    `samples` are the test images by their index, `gallery` is the file that `write_gallery` wrote,
    and `about` are the other entries of a `Record`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    cpu = f"{platform.machine()} CPU, {threads} {'thread' if threads == 1 else 'threads'}"
    changes, views = {}, {}  # of each category; one category at a time is in memory

    def groups() -> Iterator[tuple[str, dict[str, Array]]]:
        for number, (category, (index, *columns)) in enumerate(results.images.items()):
            shown = [samples[i] for i in index.tolist()]
            names = np.array([sample.name(root) for sample in shown], np.str_)
            images = ScoredImages._make([names, *columns, results.counts[category].read()])
            views[category] = view_figures(shown, images.score, images.is_anomalous)
            if bootstrap.num:
                rng = np.random.default_rng([bootstrap.seed, number])
                times = draw(images.is_anomalous, num=bootstrap.num, rng=rng)
                changes[category] = deviations(images, times)
            yield category, images._asdict()

    write_groups(images_path(path), groups())
    record = {
        "dataset": dataset,
        "root": str(root.resolve()),
        **protocol.as_record(),
        **about,
        **results.as_record(),
        "intervals": _intervals(results, changes, bootstrap) if bootstrap.num else None,
        "views": {category: row for category, row in views.items() if row} or None,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu,
        "versions": {"omiad": __version__, "torch": str(torch.__version__)},
        "digests": {
            "images": digest(images_path(path)),
            "gallery": None if gallery is None else digest(gallery),
        },
    }
    write_whole(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def images_path(results: Path) -> Path:
    """Return the path of the images of a results.json."""
    return results.with_suffix(".images.npz")


def gallery_path(results: Path) -> Path:
    """Return the path of the kept images of a results.json, which a report draws."""
    return results.with_suffix(".gallery.npz")


def read_images(results: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, ScoredImages]]:
    """Read the images of a results.json, one category after another.

    Raises:
        MissingInputError: If their file is missing.
        InputError: If it comes from another test than the record of results.json, or is broken.
    """
    path = images_path(results)
    if not path.is_file():
        raise MissingInputError(
            f"No '{path}'. It is written next to each results.json; keep the two together."
        )
    refuse_another_test(results, path, record["digests"]["images"])
    missing = set(record["categories"])
    for category, arrays in read_groups(path, _COLUMNS, mend=MEND):
        images = ScoredImages(**arrays)
        names = images.name.tolist()
        if (images.counts < 0).any() or len({*names}) < len(names) or not all(map(is_below, names)):
            raise InputError(
                f"'{path}' has negative counts, repeated images or names outside the data set. "
                f"{MEND}"
            )
        missing ^= {category}
        if category in missing:  # it has no figures
            break
        yield category, images
    if missing:
        raise InputError(f"'{path}' has not the categories of '{results}'. {MEND}")


def refuse_another_test(results: Path, beside: Path, expected: str | None) -> None:
    """Refuse a file beside a results.json whose SHA-256 is not the one that was recorded."""
    if digest(beside) != expected:
        raise InputError(
            f"'{results}' and the '{beside.name}' beside it come from different tests, or one of "
            f"them is damaged. Copy both again from one test."
        )


def _intervals(
    results: Results, changes: dict[str, dict[str, Array]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return the interval of each of the seven metrics, for each category and the mean."""
    figures = dict[str | None, Figures](results.categories.items()) | {None: results.mean}
    rows = {
        name: {
            key: np.clip(interval(figure, row[key]), 0, 1).tolist()
            for key in row
            if (figure := figures[name][key]) is not None
        }
        for name, row in means(changes).items()
    }
    mean = rows.pop(None)
    return {"level": LEVEL, **asdict(bootstrap), "categories": rows, "mean": mean}
