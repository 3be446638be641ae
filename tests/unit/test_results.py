"""results.json and the images beside it."""

import json
from pathlib import Path

import pytest
import torch

from omiad.errors import InputError, MissingInputError
from omiad.metrics import AnomalyMetrics
from omiad.protocols import find_protocol
from omiad.results import Bootstrap, images_path, read_images, read_results, write_results
from omiad.types import Labels, Prediction, Sample

SAMPLES = [
    Sample(Path(f"root/usb/{i}.png"), None, "usb", "good", "test", f"usb_{i // 2}", i % 2 + 1)
    for i in range(8)
]


def write(folder: Path, **options: object) -> Path:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(8, 6, 6, dtype=torch.bool)
    masks[4:, 1:3, 1:4] = True
    maps = torch.rand(8, 6, 6, generator=generator) + 0.4 * masks
    metrics = AnomalyMetrics(["usb"])
    batch = Labels(
        is_anomalous=masks.any(2).any(1),
        masks=masks,
        has_mask=torch.ones(8, dtype=torch.bool),
        index=torch.arange(8),
    )
    metrics.update(Prediction(maps.amax((1, 2)), maps), batch, ["usb"] * 8)
    path = folder / "results.json"
    write_results(
        path,
        metrics.compute(),
        SAMPLES,
        root=Path("root"),
        protocol=find_protocol("uniad", image_size=6, pool_size=1),
        dataset="tiny",
        device=torch.device("cpu"),
        **options,  # type: ignore[arg-type]
    )
    return path


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    assert write(tmp_path / "b").read_text() == first.read_text()
    other = json.loads(write(tmp_path / "c", bootstrap=Bootstrap(seed=1)).read_text())
    record = read_results(first)
    assert other["intervals"]["mean"] != record["intervals"]["mean"]
    assert other["categories"] == record["categories"]


def test_an_interval_holds_its_figure_and_is_as_long_as_fractions_of_one(tmp_path: Path) -> None:
    record = read_results(write(tmp_path))
    for key, (low, high) in record["intervals"]["mean"].items():
        assert 0 <= low <= high <= 1
        assert low - 0.05 <= record["mean"][key] <= high + 0.05


def test_samples_and_views_have_figures_where_images_are_views(tmp_path: Path) -> None:
    record = read_results(write(tmp_path))
    assert set(record["views"]["usb"]) == {"C1", "C2", "sample"}


def test_the_images_lie_beside_the_results(tmp_path: Path) -> None:
    path = write(tmp_path)
    [(category, images)] = read_images(images_path(path))
    assert category == "usb"
    assert images.name.tolist() == [f"usb/{i}.png" for i in range(8)]
    assert images.counts.sum() == pytest.approx(8 * 36 + 4)  # each region weighs one
    images_path(path).unlink()
    with pytest.raises(MissingInputError, match="keep the two together"):
        next(read_images(images_path(path)))


@pytest.mark.parametrize("options", [{"num": -1}, {"seed": -1}])
def test_draws_and_their_seed_are_not_negative(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="--num_resamples and --seed must not be negative"):
        Bootstrap(**options)


@pytest.mark.parametrize("damage", [slice(0, 0), slice(0, 400), slice(60, None)])
def test_broken_images_are_named(damage: slice, tmp_path: Path) -> None:
    images = images_path(write(tmp_path))
    images.write_bytes(images.read_bytes()[damage])
    with pytest.raises(InputError, match=r"cannot be read as the images of a test .* test again"):
        list(read_images(images))


@pytest.mark.parametrize("key", ["categories", "mean"])
def test_figures_of_another_form_are_no_results(key: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: None}))
    with pytest.raises(InputError, match="holds no results of omiad"):
        read_results(path)
