"""results.json and the images next to it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from predicted import batch_of

from omiad.errors import InputError, MissingInputError
from omiad.metrics import AnomalyMetrics
from omiad.protocols import UNIAD
from omiad.record import read_results
from omiad.results import Bootstrap, images_path, read_images, write_results
from omiad.types import Sample

SAMPLES = [
    Sample(Path(f"root/usb/{i}.png"), (), "usb", "good", "test", f"usb_{i // 2}", i % 2 + 1)
    for i in range(8)
]


ABOUT: dict[str, object] = {
    **dict.fromkeys(("checkpoint", "selected_on", "seed", "weights", "latency")),
    "model": {"kind": "maps"},
    "estimator": "exact",
    "map_range": [0.0, 1.0],
}


def write(folder: Path, **options: object) -> Path:
    metrics = AnomalyMetrics(["usb"])
    given = batch_of([False] * 4 + [True] * 4, torch.Generator().manual_seed(0))
    metrics.update(*given, ["usb"] * 8)
    path = folder / "results.json"
    write_results(
        path,
        metrics.compute(),
        SAMPLES,
        root=Path("root"),
        protocol=dataclasses.replace(UNIAD, input_size=8, map_size=8, pool_size=1),
        dataset="tiny",
        device=torch.device("cpu"),
        **(ABOUT | options),  # type: ignore[arg-type]
    )
    return path


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert write(tmp_path / "b").read_text() == first.read_text()
    other = json.loads(write(tmp_path / "c", bootstrap=Bootstrap(seed=1)).read_text())
    record = read_results(first)
    assert other["intervals"]["mean"] != record["intervals"]["mean"]
    assert other["categories"] == record["categories"]


def test_intervals_hold_their_figures_and_views_have_theirs(tmp_path: Path) -> None:
    record = read_results(write(tmp_path))
    for key, (low, high) in record["intervals"]["mean"].items():
        assert 0 <= low <= high <= 1
        assert low - 0.05 <= record["mean"][key] <= high + 0.05
    assert set(record["views"]["usb"]) == {"C1", "C2", "sample"}


def test_the_images_lie_next_to_the_results(tmp_path: Path) -> None:
    path = write(tmp_path)
    record = read_results(path)
    [(category, images)] = read_images(path, record)
    assert category == "usb"
    assert images.name.tolist() == [f"usb/{i}.png" for i in range(8)]
    assert images.counts.sum() == pytest.approx(8 * 64 + 4)  # each region weighs one
    images_path(path).unlink()
    with pytest.raises(MissingInputError, match="keep the two together"):
        next(read_images(path, record))


@pytest.mark.parametrize("options", [{"num": -1}, {"seed": -1}])
def test_draws_and_their_seed_are_not_negative(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="--num_resamples and --seed"):
        Bootstrap(**options)


@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, 400), slice(60, None)])
def test_broken_images_are_named(damage: slice, tmp_path: Path) -> None:
    path = write(tmp_path)
    images = images_path(path)
    images.write_bytes(images.read_bytes()[damage])
    with pytest.raises(InputError, match=images.name):
        list(read_images(path, read_results(path)))


@pytest.mark.parametrize("key", ["categories", "mean"])
def test_figures_of_another_form_are_no_results(key: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    with pytest.raises(InputError, match=key):
        read_results(path)
