"""`omiad evaluate` and `omiad compare`, in process, on a tiny data set in the MVTec layout."""

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from references import PROTOCOL_STEPS, slow_pixel_figures, slow_ranking
from sklearn.metrics import average_precision_score, roc_auc_score
from synthetic import write_folder, write_mpdd, write_realiad, write_visa

from omiad.cli import main
from omiad.data.images import read_mask
from omiad.data.layouts import INDEXES, Layout
from omiad.evaluation.compare import differences

SIZE = 32


def images_of(root: Path) -> list[Path]:
    return sorted(root.glob("*/test/*/*.png"))


def write_maps(root: Path, folder: Path, *, quality: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Write maps of a method that sees defects through noise; by path below the root."""
    rng = np.random.default_rng(seed)
    maps = {}
    for image in images_of(root):
        scores = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
        mask = mask_of(image)
        if mask is not None:
            scores += np.float32(quality) * mask
        path = folder / image.relative_to(root).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
        maps[image.relative_to(root).as_posix()] = scores
    return maps


def mask_of(image: Path) -> np.ndarray | None:
    if image.parent.name == "good":
        return None
    folder = image.parents[2] / "ground_truth" / image.parent.name
    return read_mask(folder / f"{image.stem}_mask.png", SIZE, image=image).numpy()


def evaluate(root: Path, maps: Path, output: Path, *extra: str) -> dict:  # type: ignore[type-arg]
    options = [f"--maps={maps}", f"--data.root={root}", f"--output={output}"]
    main(["evaluate", *options, f"--image_size={SIZE}", "--pool_size=1", *extra])
    return json.loads(output.read_text())  # type: ignore[no-any-return]


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_any_methods_maps_get_the_figures_of_slow_definitions(
    mvtec_root: Path, tmp_path: Path
) -> None:
    maps = write_maps(mvtec_root, tmp_path / "maps", quality=2)
    record = evaluate(mvtec_root, tmp_path / "maps", tmp_path / "results.json")
    for category, figures in record["categories"].items():
        images = [i for i in images_of(mvtec_root) if category in i.parts]
        scores = np.stack([maps[i.relative_to(mvtec_root).as_posix()] for i in images])
        masks = [mask_of(i) for i in images]
        truth = np.stack([np.zeros((SIZE, SIZE), bool) if m is None else m for m in masks])
        both = figures | record["further"]["categories"][category]
        for name, value in slow_pixel_figures(scores, truth).items():
            assert both[name] == pytest.approx(value, abs=1e-6), name
        labels = np.array([m is not None for m in masks])
        for name, value in slow_ranking(scores.max((1, 2)), labels).items():
            assert both[f"image_{name}"] == pytest.approx(value, abs=1e-9), name
    assert record["protocol"] == "uniad"
    assert record["protocol_changes"] == {"input_size": 32, "map_size": 32, "pool_size": 1}
    assert record["protocol_steps"]["image score"] == "highest pixel"
    for name, row in record["intervals"]["categories"].items():
        for key, (low, high) in row.items():
            assert low <= high, (name, key)


@pytest.mark.parametrize("name", PROTOCOL_STEPS)
def test_a_protocols_figures_are_those_of_its_sources_steps(
    mvtec_root: Path, tmp_path: Path, name: str
) -> None:
    steps, side = PROTOCOL_STEPS[name]
    rng = np.random.default_rng(0)
    prepared = []
    for image in images_of(mvtec_root):
        mask = mask_of(image)
        mask = np.zeros((SIZE, SIZE), bool) if mask is None else mask
        scores = rng.random((side, side), np.float32)
        scores += np.kron(mask, np.ones((side // SIZE + 1,) * 2, np.float32))[:side, :side]
        path = (tmp_path / "maps" / image.relative_to(mvtec_root)).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
        if "bottle" in image.parts:
            prepared.append(steps(scores, mask))
    given = [f"--maps={tmp_path / 'maps'}", f"--data.root={mvtec_root}", f"--protocol={name}"]
    main(["evaluate", *given, f"--output={tmp_path / 'r.json'}", "--num_resamples=0"])
    record = json.loads((tmp_path / "r.json").read_text())
    figures = record["categories"]["bottle"]
    maps, masks, scores = (np.stack(column) for column in zip(*prepared, strict=True))
    truth = masks.any((1, 2))
    assert figures["pixel_auroc"] == pytest.approx(
        roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-4
    )
    assert figures["pixel_ap"] == pytest.approx(
        average_precision_score(masks.ravel(), maps.ravel()), abs=1e-4
    )
    assert figures["image_ap"] == pytest.approx(average_precision_score(truth, scores))
    assert record["protocol"] == name
    assert record["protocol_changes"] == {}
    assert record["intervals"] is None


def test_a_sources_estimators_are_at_hand(mvtec_root: Path, tmp_path: Path) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=2)
    exact = evaluate(mvtec_root, tmp_path / "maps", tmp_path / "e.json", "--protocol=ader")
    source = evaluate(
        mvtec_root,
        tmp_path / "maps",
        tmp_path / "s.json",
        "--protocol=ader",
        "--estimator=source",
    )
    assert (exact["estimator"], source["estimator"]) == ("exact", "source")
    assert source["mean"]["pixel_f1_max"] < exact["mean"]["pixel_f1_max"]  # fewer thresholds
    assert source["mean"]["image_ap"] == exact["mean"]["image_ap"]
    assert "pixel_ap" not in source["bounds"]["bottle"]


def test_neither_a_model_nor_training_images_are_needed(mvtec_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(mvtec_root, root)
    for folder in root.glob("*/train"):
        shutil.rmtree(folder)
    write_maps(root, tmp_path / "maps", quality=2)
    assert evaluate(root, tmp_path / "maps", tmp_path / "out.json")["mean"]["mad"] is not None


@pytest.mark.parametrize(
    ("layout", "write"),
    [
        ("visa", write_visa),
        ("mpdd", write_mpdd),
        ("realiad", write_realiad),
        ("folder", write_folder),
    ],
)
@pytest.mark.parametrize("is_detected", [False, True])
def test_maps_of_a_data_set_in_another_layout_are_scored(
    layout: Layout,
    write: Callable[[Path, np.random.Generator], None],
    is_detected: bool,
    tmp_path: Path,
) -> None:
    root, maps = tmp_path / "data", tmp_path / "maps"
    write(root, np.random.default_rng(0))
    samples = [sample for sample in INDEXES[layout](root) if sample.split == "test"]
    rng = np.random.default_rng(1)
    drawn: dict[str, list[tuple[np.ndarray, np.ndarray, bool]]] = defaultdict(list)
    for sample in samples:
        mask = np.zeros((SIZE, SIZE), bool)
        if sample.mask is not None:
            mask = read_mask(sample.mask, SIZE, image=sample.image).numpy()
        scores = (rng.normal(size=mask.shape) + 2 * mask).astype(np.float32)
        path = (maps / sample.image.relative_to(root)).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
        drawn[sample.category].append((scores, mask, sample.is_anomalous))
    options = [] if is_detected else [f"--data.layout={layout}"]
    record = evaluate(root, maps, tmp_path / "results.json", *options)
    assert set(record["categories"]) == set(drawn)
    for category, images in drawn.items():
        pixels, masks, labels = map(np.array, zip(*images, strict=True))
        figures = record["categories"][category]
        if labels.any() and not labels.all():
            expected = roc_auc_score(labels, pixels.max((1, 2)))
            assert figures["image_auroc"] == pytest.approx(expected)
        if category == "nut":  # two of its defective images have no mask
            assert figures["pixel_ap"] is None
            assert "2 of 5 defective test images have no mask" in record["notes"][category]
        elif labels.any():
            expected = average_precision_score(masks.ravel(), pixels.ravel())
            assert figures["pixel_ap"] == pytest.approx(expected)
    if layout == "realiad":
        assert set(record["views"]["audiojack"]) == {"C1", "C2", "C4", "C5", "sample"}
    else:
        assert record["views"] is None


def test_a_methods_own_image_scores_take_the_place_of_the_protocols(
    mvtec_root: Path, tmp_path: Path
) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=2)
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "score"])
        for image in images_of(mvtec_root):
            table.writerow([image.relative_to(mvtec_root), int(image.parent.name == "good")])
    scores = f"--scores={tmp_path / 'scores.csv'}"
    record = evaluate(mvtec_root, tmp_path / "maps", tmp_path / "out.json", scores)
    assert record["mean"]["image_auroc"] == 0


def test_every_faulty_map_is_named_and_nothing_is_written(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    write_maps(mvtec_root, maps, quality=1)
    wrong, broken = sorted(maps.rglob("*.npy"))[:2]
    np.save(wrong, np.zeros((SIZE, SIZE + 1), np.float32))
    np.save(broken, np.full((SIZE, SIZE), np.nan, np.float32))
    options = [f"--maps={maps}", f"--data.root={mvtec_root}", f"--output={tmp_path / 'o.json'}"]
    sentence = error_of(["evaluate", *options, f"--image_size={SIZE}", "--pool_size=4"], capsys)
    assert "faults in 2" in sentence
    assert f"'{wrong}' is 32 x 33, not 32 x 32" in sentence
    assert f"'{broken}' holds NaN" in sentence
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--protocol=mine"], "No protocol 'mine'. Choose one of uniad, ader, dinomaly"),
        (["--pool_size=300"], "pool_size 300 is larger than the maps of 224 pixels"),
        (["--num_resamples=-1"], "--num_resamples and --seed must not be negative, but got -1"),
        (["--output=README.md"], "'README.md' is there already"),
    ],
)
def test_an_evaluation_that_cannot_be_made_is_explained(
    mvtec_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    sentence: str,
) -> None:
    given = [f"--maps={tmp_path}", f"--data.root={mvtec_root}", f"--output={tmp_path / 'o.json'}"]
    assert sentence in error_of(["evaluate", *given, *options], capsys)


def test_a_data_set_without_test_images_is_named(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for category in mvtec_root.iterdir():
        shutil.copytree(category / "train", tmp_path / "data" / category.name / "train")
    given = [f"--maps={tmp_path}", f"--data.root={tmp_path / 'data'}"]
    sentence = error_of(["evaluate", *given, f"--output={tmp_path / 'o.json'}"], capsys)
    assert f"'{tmp_path / 'data'}' has no test images. Check --data.root." in sentence
    assert not (tmp_path / "o.json").exists()


def test_a_better_method_is_told_from_chance_and_a_run_from_itself(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, quality in (("a", 0.2), ("b", 3.0)):
        write_maps(mvtec_root, tmp_path / name, quality=quality)
        evaluate(mvtec_root, tmp_path / name, tmp_path / f"{name}.json")
    capsys.readouterr()
    main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    printed = capsys.readouterr().out
    assert "of 8 means" in " ".join(printed.split())
    assert "…" not in printed  # nothing is cut at 80 columns
    main(["compare", str(tmp_path / "b.json"), str(tmp_path / "b.json")])
    assert "(0 of 8 means)" in " ".join(capsys.readouterr().out.split())


def test_figures_that_a_source_lacks_are_not_compared(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate("ab"):
        write_maps(mvtec_root, tmp_path / name, quality=1, seed=seed)
        evaluate(mvtec_root, tmp_path / name, tmp_path / f"{name}.json", "--estimator=source")
    capsys.readouterr()
    main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])
    assert "of 4 means" in " ".join(capsys.readouterr().out.split())


def test_how_a_method_upsamples_its_maps_does_not_keep_it_from_being_compared(
    mvtec_root: Path, tmp_path: Path
) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=1)
    record = evaluate(mvtec_root, tmp_path / "maps", tmp_path / "a.json")
    record["protocol_changes"]["upsampling"] = "bilinear; Gaussian, sigma 4"
    (tmp_path / "b.json").write_text(json.dumps(record))
    shutil.copy(tmp_path / "a.images.npz", tmp_path / "b.images.npz")
    main(["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")])


def test_seeds_are_summed_up(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for seed in range(3):
        write_maps(mvtec_root, tmp_path / str(seed), quality=1, seed=seed)
        files.append(str(tmp_path / f"{seed}.json"))
        evaluate(mvtec_root, tmp_path / str(seed), Path(files[-1]))
    capsys.readouterr()
    main(["compare", *files, "--seeds=true"])
    printed = capsys.readouterr().out
    assert "over 3 runs" in " ".join(printed.split())
    assert "…" not in printed


def test_seeds_are_drawn_beside_images(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {}
    for name, quality in (("first", 0.2), ("bad", 0.2), ("good", 3.0)):
        write_maps(mvtec_root, tmp_path / name, quality=quality, seed=len(files))
        files[name] = tmp_path / f"{name}.json"
        evaluate(mvtec_root, tmp_path / name, files[name])
    first, bad, good = files.values()
    options: dict[str, int] = {"num": 200, "seed": 0}
    alone = [differences([first], [one], **options)["mean"] for one in (bad, good)]
    # The same run as every seed is no other than alone.
    twice = differences([first], [good, good], **options)["mean"]
    for key, difference in alone[1].items():
        assert twice[key] == pytest.approx(difference)
    both = differences([first], [bad, good], **options)["mean"]
    for key, difference in both.items():
        assert difference.value == pytest.approx((alone[0][key].value + alone[1][key].value) / 2)
        # A quarter of the draws take the one twice, and a quarter the other.
        assert difference.low < alone[0][key].high
        assert difference.high > alone[1][key].low
    # Two models of two seeds, pair by pair: what the pairs have in common cancels out.
    shifted = differences([bad, good], [bad, good], **options)["mean"]
    assert all((d.value, d.low, d.high) == (0, 0, 0) for d in shifted.values())
    capsys.readouterr()
    main(["compare", str(bad), str(good), "--minus", str(first)])
    assert "of 8 means" in " ".join(capsys.readouterr().out.split())


def test_runs_that_cannot_be_compared_are_refused(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_maps(mvtec_root, tmp_path / "maps", quality=1)
    evaluate(mvtec_root, tmp_path / "maps", tmp_path / "a.json")
    evaluate(mvtec_root, tmp_path / "maps", tmp_path / "b.json", "--blur_sigma=1")
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert "Evaluate both in one way" in error_of(["compare", a, b], capsys)
    assert "but not 1" in error_of(["compare", a], capsys)
    assert "but not 3" in error_of(["compare", a, a, a], capsys)
    assert "got 2 for 3" in error_of(["compare", a, a, a, "--minus", a, a], capsys)
    assert "with --seeds" in error_of(["compare", a, "--minus", a, "--seeds=true"], capsys)
    assert "at least 1" in error_of(["compare", a, a, "--num_resamples=0"], capsys)
    assert "must not be negative" in error_of(["compare", a, a, "--seed=-1"], capsys)
    assert "No results at 'gone.json'" in error_of(["compare", a, "gone.json"], capsys)
    assert "holds no results" in error_of(["compare", a, "tests/goldens/option_names.json"], capsys)
    assert "is not JSON" in error_of(["compare", a, "README.md"], capsys)
    smaller = tmp_path / "data"
    shutil.copytree(mvtec_root, smaller)
    gone = images_of(smaller)[0]
    gone.unlink()
    (tmp_path / "maps" / gone.relative_to(smaller)).with_suffix(".npy").unlink()
    evaluate(smaller, tmp_path / "maps", tmp_path / "c.json")
    sentence = error_of(["compare", a, str(tmp_path / "c.json")], capsys)
    assert f"the first is {gone.relative_to(smaller).as_posix()}" in sentence
    shutil.rmtree(smaller / "bottle")
    shutil.rmtree(tmp_path / "maps" / "bottle")
    evaluate(smaller, tmp_path / "maps", tmp_path / "d.json")
    for pair in ([a, str(tmp_path / "d.json")], [str(tmp_path / "d.json"), a]):
        sentence = error_of(["compare", *pair], capsys)
        assert "has the categories" in sentence
        assert "bottle, cable" in sentence
        assert all(f"{Path(path).name}' " in sentence for path in pair)
    with np.load(tmp_path / "a.images.npz") as archive:
        turned = {k: ~v if k.endswith("is_anomalous") else v for k, v in archive.items()}
    np.savez(tmp_path / "e.images.npz", **turned)
    shutil.copy(a, tmp_path / "e.json")
    assert "are defective in one run alone" in error_of(
        ["compare", a, str(tmp_path / "e.json")], capsys
    )
    (tmp_path / "d.images.npz").unlink()
    assert "keep the two together" in error_of(
        ["compare", str(tmp_path / "d.json"), str(tmp_path / "d.json")], capsys
    )
