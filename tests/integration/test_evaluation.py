"""Maps of other methods, from files to results and comparisons, on a tiny data set."""

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import slow_pixel_figures, slow_ranking
from sklearn.metrics import average_precision_score
from synthetic import write_folder, write_mpdd, write_realiad, write_visa

from omiad.cli import main
from omiad.data.layouts import INDEXES, Layout
from omiad.data.masks import read_mask
from omiad.errors import InputError, MissingInputError
from omiad.evaluation import compare, evaluate
from omiad.evaluation.compare import differences
from omiad.evaluation.evaluate import EvaluatedData
from omiad.files import digest
from omiad.types import Sample

SIZE = 32


def images_of(root: Path) -> list[Sample]:
    samples = [sample for sample in INDEXES["mvtec"](root) if sample.split == "test"]
    return sorted(samples, key=lambda sample: sample.image)


def mask_of(sample: Sample) -> np.ndarray:
    if not sample.masks:
        return np.zeros((SIZE, SIZE), bool)
    return read_mask(sample.masks, SIZE, image=sample.image).numpy()


def write_map(folder: Path, name: str, scores: np.ndarray) -> None:
    path = (folder / name).with_suffix(".npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, scores)


def write_maps(root: Path, folder: Path, *, quality: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Write the maps of a method that sees defects through noise; by path below the root."""
    rng, maps = np.random.default_rng(seed), {}
    for sample in images_of(root):
        scores = rng.normal(size=(SIZE, SIZE)) + quality * mask_of(sample)
        name = sample.name(root)
        maps[name] = scores.astype(np.float32)
        write_map(folder, name, maps[name])
    return maps


def measure(root: Path, maps: Path, output: Path, **options: Any) -> dict[str, Any]:
    options = {"image_size": SIZE, "pool_size": 1, "num_resamples": 20} | options
    evaluate(str(maps), EvaluatedData(str(root)), output=str(output), **options)
    return json.loads(output.read_text())  # type: ignore[no-any-return]


def runs_of(root: Path, folder: Path, *qualities: float, **options: Any) -> list[str]:
    """Measure methods that differ in quality and noise."""
    files = []
    for seed, quality in enumerate(qualities):
        write_maps(root, folder / str(seed), quality=quality, seed=seed)
        files.append(str(folder / f"{seed}.json"))
        measure(root, folder / str(seed), Path(files[-1]), **options)
    return files


def printed(capsys: pytest.CaptureFixture[str], command: str, *args: str) -> str:
    capsys.readouterr()
    main([command, *args])
    text = capsys.readouterr().out
    assert "…" not in text  # nothing is cut at 80 columns
    return " ".join(text.split())


def test_any_methods_maps_get_the_figures_of_slow_definitions(
    mvtec_root: Path, tmp_path: Path
) -> None:
    maps = write_maps(mvtec_root, tmp_path / "maps", quality=2)
    given = [f"--maps={tmp_path / 'maps'}", f"--data.root={mvtec_root}", "--pool_size=1"]
    main(["evaluate", *given, f"--output={tmp_path / 'r.json'}", f"--image_size={SIZE}"])
    record = json.loads((tmp_path / "r.json").read_text())
    for category, figures in record["categories"].items():
        images = [sample for sample in images_of(mvtec_root) if sample.category == category]
        scores = np.stack([maps[sample.name(mvtec_root)] for sample in images])
        both = figures | record["further"]["categories"][category]
        masks = np.stack([mask_of(sample) for sample in images])
        for name, value in slow_pixel_figures(scores, masks).items():
            assert both[name] == pytest.approx(value, abs=1e-6), name
        labels = np.array([sample.is_anomalous for sample in images])
        for name, value in slow_ranking(scores.max((1, 2)), labels).items():
            assert both[f"image_{name}"] == pytest.approx(value, abs=1e-9), name
    assert record["protocol"] == "uniad"
    assert record["protocol_changes"] == {"input_size": 32, "map_size": 32, "pool_size": 1}


def test_the_estimators_of_a_source_may_be_chosen(mvtec_root: Path, tmp_path: Path) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=2)
    exact, source = (
        measure(mvtec_root, tmp_path / "maps", tmp_path / name, protocol="ader", estimator=name)
        for name in ("exact", "source")
    )
    assert (exact["estimator"], source["estimator"]) == ("exact", "source")
    assert source["mean"]["pixel_f1_max"] < exact["mean"]["pixel_f1_max"]  # fewer thresholds
    assert source["mean"]["image_ap"] == exact["mean"]["image_ap"]
    assert "pixel_ap" not in source["bounds"]["bottle"]


WRITERS: dict[Layout, Callable[[Path, np.random.Generator], None]] = {
    "visa": write_visa, "mpdd": write_mpdd, "realiad": write_realiad, "folder": write_folder,
}  # fmt: skip


@pytest.mark.parametrize("layout", WRITERS)
def test_maps_of_a_data_set_in_another_layout_are_scored_without_training_images(
    layout: Layout, tmp_path: Path
) -> None:
    root, maps = tmp_path / "data", tmp_path / "maps"
    WRITERS[layout](root, np.random.default_rng(0))
    rng = np.random.default_rng(1)
    drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for sample in INDEXES[layout](root, for_test=True):
        if sample.split == "train":
            sample.image.unlink()
            continue
        mask = mask_of(sample)
        scores = (rng.normal(size=mask.shape) + 2 * mask).astype(np.float32)
        write_map(maps, sample.name(root), scores)
        drawn[sample.category].append((scores, mask))
    record = measure(root, maps, tmp_path / "results.json")
    assert set(record["categories"]) == set(drawn)
    for category, images in drawn.items():
        pixels, masks = map(np.array, zip(*images, strict=True))
        found = record["categories"][category]["pixel_ap"]
        if category == "nut":  # two of its defective images have no mask
            assert found is None
            assert "2 of 5" in record["notes"][category]
        elif masks.any():
            assert found == pytest.approx(average_precision_score(masks.ravel(), pixels.ravel()))
    assert (record["views"] is not None) == (layout == "realiad")


def test_image_scores_of_a_method_replace_those_of_the_protocol(
    mvtec_root: Path, tmp_path: Path
) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=2)
    images, table = images_of(mvtec_root), tmp_path / "scores.csv"
    rows = [f"{each.name(mvtec_root)},{int(not each.is_anomalous)}" for each in images]
    table.write_text("\n".join(["image,score", *rows]))
    record = measure(mvtec_root, tmp_path / "maps", tmp_path / "out.json", scores=str(table))
    assert record["mean"]["image_auroc"] == 0


def test_every_faulty_map_is_named_and_nothing_is_written(mvtec_root: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    write_maps(mvtec_root, maps, quality=1)
    wrong, broken = sorted(maps.rglob("*.npy"))[:2]
    np.save(wrong, np.zeros((SIZE, SIZE + 1), np.float32))
    np.save(broken, np.full((SIZE, SIZE), np.nan, np.float32))
    with pytest.raises(InputError, match="faults in 2") as error:
        measure(mvtec_root, maps, tmp_path / "o.json")
    assert f"'{wrong}' is 32 x 33, not 32 x 32" in str(error.value)
    assert f"'{broken}' holds NaN" in str(error.value)
    assert not (tmp_path / "o.json").exists()


def test_every_faulty_mask_is_named(mvtec_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(mvtec_root, tmp_path / "data"))
    write_maps(root, tmp_path / "maps", quality=1)
    broken = sorted(root.rglob("*_mask.png"))[::5]
    for path in broken:
        path.write_bytes(b"no mask")
    with pytest.raises(InputError, match=f"{len(broken)} files") as error:
        measure(root, tmp_path / "maps", tmp_path / "o.json")
    assert all(str(path) in str(error.value) for path in broken)


def test_an_evaluation_that_cannot_be_made_is_refused(mvtec_root: Path, tmp_path: Path) -> None:
    for category in mvtec_root.iterdir():
        shutil.copytree(category / "train", tmp_path / "data" / category.name / "train")
    with pytest.raises(InputError, match=r"'README.md' already exists"):
        measure(mvtec_root, tmp_path, Path("README.md"))
    with pytest.raises(InputError, match="--num_resamples"):
        measure(mvtec_root, tmp_path, tmp_path / "o.json", num_resamples=-1)
    with pytest.raises(InputError, match=f"'{tmp_path / 'data'}' has no test images"):
        measure(tmp_path / "data", tmp_path, tmp_path / "o.json")


def test_a_run_does_not_differ_from_itself_nor_by_its_upsampling(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = runs_of(mvtec_root, tmp_path, 0.2, 3.0)
    assert "of 8 means" in printed(capsys, "compare", bad, good)
    assert "over 2 runs" in printed(capsys, "compare", bad, good, "--seeds")
    record = json.loads(Path(good).read_text())
    record["protocol_changes"]["upsampling"] = "bilinear; Gaussian, sigma 4"
    (tmp_path / "other.json").write_text(json.dumps(record))
    shutil.copy(tmp_path / "1.images.npz", tmp_path / "other.images.npz")
    assert "(0 of 8 means)" in printed(capsys, "compare", good, str(tmp_path / "other.json"))


def test_figures_that_a_source_does_not_have_are_not_compared(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = runs_of(mvtec_root, tmp_path, 1, 1, estimator="source")
    assert "of 4 means" in printed(capsys, "compare", *files)


def test_seeds_are_drawn_with_the_images(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, bad, good = map(Path, runs_of(mvtec_root, tmp_path, 0.2, 0.2, 3.0))
    options: dict[str, int] = {"num": 200, "seed": 0}
    alone = [differences([first], [one], **options)[None] for one in (bad, good)]
    # The same run as every seed is the run alone.
    twice = differences([first], [good, good], **options)[None]
    for key, difference in alone[1].items():
        assert twice[key] == pytest.approx(difference)
    both = differences([first], [bad, good], **options)[None]
    for key, difference in both.items():
        assert difference.value == pytest.approx((alone[0][key].value + alone[1][key].value) / 2)
        # A quarter of the draws take the one twice, and a quarter the other.
        assert difference.low < alone[0][key].high
        assert difference.high > alone[1][key].low
    # Two models of two seeds, pair by pair: what the pairs have in common cancels out.
    shifted = differences([bad, good], [bad, good], **options)[None]
    assert all((d.value, d.low, d.high) == (0, 0, 0) for d in shifted.values())
    args = [str(bad), str(good), "--minus", str(first)]
    assert "of 8 means" in printed(capsys, "compare", *args)


def test_runs_that_cannot_be_compared_are_refused(mvtec_root: Path, tmp_path: Path) -> None:
    [a] = runs_of(mvtec_root, tmp_path, 1)
    measure(mvtec_root, tmp_path / "0", tmp_path / "b.json", blur_sigma=1)
    for runs, options, message in (
        ([a, str(tmp_path / "b.json")], {}, "blur_sigma"),
        ([a], {}, "not 1"),
        ([a, a, a], {}, "not 3"),
        ([a, a, a], {"minus": [a, a]}, "got 2 for 3"),
        ([a], {"minus": [a], "seeds": True}, "with --seeds"),
        ([a, a], {"num_resamples": 0}, "--num_resamples"),
        ([a, a], {"seed": -1}, "--seed"),
        ([a, "tests/goldens/option_names.json"], {}, "option_names.json"),
        ([a, "README.md"], {}, "README.md"),
    ):
        with pytest.raises(InputError, match=message):
            compare(runs, **options)  # type: ignore[arg-type]
    with pytest.raises(MissingInputError, match=r"'gone.json'"):
        compare([a, "gone.json"])


def test_runs_of_other_images_are_not_compared(mvtec_root: Path, tmp_path: Path) -> None:
    [a] = runs_of(mvtec_root, tmp_path, 1)
    smaller, maps = tmp_path / "data", tmp_path / "0"
    shutil.copytree(mvtec_root, smaller)
    gone = images_of(smaller)[0]
    gone.image.unlink()
    (maps / gone.name(smaller)).with_suffix(".npy").unlink()
    measure(smaller, maps, tmp_path / "c.json")
    with pytest.raises(InputError, match=f"the first is {gone.name(smaller)}"):
        compare([a, str(tmp_path / "c.json")])
    shutil.rmtree(smaller / "bottle")
    shutil.rmtree(maps / "bottle")
    d = str(tmp_path / "d.json")
    measure(smaller, maps, Path(d))
    for pair in ([a, d], [d, a]):
        with pytest.raises(InputError, match="bottle, cable"):
            compare(pair)
    with np.load(tmp_path / "0.images.npz") as archive:
        turned = {k: ~v if k.endswith("is_anomalous") else v for k, v in archive.items()}
    np.savez(tmp_path / "e.images.npz", **turned)
    record = json.loads(Path(a).read_text())
    record["digests"]["images"] = digest(tmp_path / "e.images.npz")
    (tmp_path / "e.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="defective in one run alone"):
        compare([a, str(tmp_path / "e.json")])
    (tmp_path / "d.images.npz").unlink()
    with pytest.raises(MissingInputError, match=r"d\.images\.npz"):
        compare([d, d])
