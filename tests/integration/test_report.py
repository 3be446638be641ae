"""`omiad report`, in process, on the maps of a method for tiny data sets in the MVTec layout."""

import io
import json
import os
import re
import shutil
from base64 import b64decode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic import write_mvtec

from omiad.cli import main
from omiad.data.layouts.published import PUBLISHED
from omiad.report.pictures import MAX_MEGABYTES

SIZE = 32


def write_maps(root: Path, folder: Path, *, quality: float = 2.0) -> None:
    """Write maps of a method that sees defects through noise."""
    rng = np.random.default_rng(0)
    for image in sorted(root.glob("*/test/*/*.png")):
        scores = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
        if image.parent.name != "good":
            scores[8:16, 8:16] += np.float32(quality)
        path = folder / image.relative_to(root).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)


def evaluated(root: Path, folder: Path, *extra: str, quality: float = 2.0) -> Path:
    """Return the folder of a run of `omiad evaluate`."""
    write_maps(root, folder / "maps", quality=quality)
    given = [f"--maps={folder / 'maps'}", f"--data.root={root}", f"--image_size={SIZE}"]
    steps = ["--pool_size=1", "--num_resamples=20", f"--output={folder / 'results.json'}"]
    main(["evaluate", *given, *steps, *extra])
    return folder


def page_of(runs: Sequence[Path], out: Path, *extra: str) -> str:
    main(["report", *map(str, runs), f"--out={out}", *extra])
    return (out / "index.html").read_text(encoding="utf-8")


def altered(run: Path, folder: Path, **more: Any) -> Path:
    """Return a copy of a run whose results.json says something else."""
    shutil.copytree(run, folder)
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return folder


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'id="gallery-data">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def error_of(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        main(args)
    assert exit_info.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def pixels_of(address: str) -> np.ndarray:
    content = b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=float)


@pytest.fixture(scope="module")
def run(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(mvtec_root, tmp_path_factory.mktemp("peer") / "bank")


def test_each_image_has_the_outcome_of_the_best_threshold(run: Path, tmp_path: Path) -> None:
    data = data_of(page_of([run], tmp_path))
    assert len(data["images"]) == 12
    for category in ("bottle", "cable"):
        images = [image for image in data["images"] if image["category"] == category]
        scores = np.array([image["runs"][0]["score"] for image in images])
        defective = np.array([image["defect"] != "good" for image in images])
        f1 = [2 * (defective & (scores >= t)).sum() / (defective.sum() + (scores >= t).sum())
              for t in scores]  # fmt: skip
        limit = scores[scores >= 0][np.flatnonzero(np.array(f1) == max(f1))].max()
        assert data["runs"][0]["thresholds"][category] == pytest.approx(limit)
        names = {(True, True): "detected", (True, False): "miss",
                 (False, True): "false alarm", (False, False): "passed"}  # fmt: skip
        for image, score, is_defective in zip(images, scores, defective, strict=True):
            expected = names[bool(is_defective), bool(score >= limit)]
            assert image["runs"][0]["outcome"] == expected


def test_one_scale_leaves_normal_images_dark(mvtec_root: Path, tmp_path: Path) -> None:
    strong = evaluated(mvtec_root, tmp_path / "strong", quality=20)
    data = data_of(page_of([strong], tmp_path / "page"))
    light = {True: [], False: []}  # type: ignore[var-annotated]
    for image in data["images"]:
        heat = pixels_of(image["runs"][0]["map"])
        light[image["defect"] == "good"].append(heat[9:15, 9:15].mean())
    assert max(light[True]) < 100
    assert min(light[False]) > 180


def test_several_runs_share_the_photographs(run: Path, mvtec_root: Path, tmp_path: Path) -> None:
    other = evaluated(mvtec_root, tmp_path / "other", quality=1)
    page = page_of([run, other], tmp_path / "page")
    data = data_of(page)
    assert [r["name"] for r in data["runs"]] == ["peer, bank", "peer, other"]
    assert len(data["images"]) == 12
    assert all(image["runs"][0] and image["runs"][1] for image in data["images"])
    assert "measured in different ways" not in page
    blurred = evaluated(mvtec_root, tmp_path / "blurred", "--blur_sigma=1")
    assert "measured in different ways" in page_of([run, blurred], tmp_path / "both")


def test_charts_and_tables_can_be_heard(run: Path, tmp_path: Path) -> None:
    page = page_of([run], tmp_path)
    of_bottle = json.loads((run / "results.json").read_text())["categories"]["bottle"]
    threshold = data_of(page)["runs"][0]["thresholds"]["bottle"]
    for label in (
        f"pixel ROC of bottle; peer, bank: pixel AUROC {100 * of_bottle['pixel_auroc']:.1f} %",
        "image scores of peer, bank on bottle; 3 normal and 3 defective test images; threshold "
        f"{threshold:.4g}",
    ):
        assert f'aria-label="{label}"' in page
    assert page.count('<th scope="row">peer, bank</th>') == 1
    assert page.count('<th scope="row">bottle</th>') == 1


def test_a_page_fetches_nothing(run: Path, tmp_path: Path) -> None:
    page = page_of([run], tmp_path)
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=[\"']?(?!#|data:)[^\"'> ]+", page)
    assert "://" not in page


def test_missing_masks_are_not_drawn_as_empty_ones(mvtec_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(mvtec_root, root)
    shutil.rmtree(root / "cable" / "ground_truth")
    page = page_of([evaluated(root, tmp_path / "run")], tmp_path / "page")
    assert "cable: 3 of 3 defective test images have no mask: no pixel figures" in page
    assert "pixel ROC, bottle" in page
    assert "pixel ROC, cable" not in page
    for image in data_of(page)["images"]:
        assert image["has_mask"] == (image["category"] == "bottle" or image["defect"] == "good")
        assert (image["mask"] is not None) == (image["has_mask"] and image["defect"] != "good")


@pytest.mark.parametrize("count", [1, 50])
def test_any_number_of_categories_has_a_page(tmp_path: Path, count: int) -> None:
    names = [f"part_{i:02}" for i in range(count)]
    write_mvtec(tmp_path / "data", np.random.default_rng(0), categories=names, num_train=0,
                num_good=1, num_bad=1)  # fmt: skip
    page = page_of([evaluated(tmp_path / "data", tmp_path / "run")], tmp_path / "page")
    assert page.count("<details") == count
    assert page.count('<th scope="row">part_') == count
    assert f"All {2 * count} test images." in page


def test_without_defects_nothing_is_judged(tmp_path: Path) -> None:
    write_mvtec(tmp_path / "data", np.random.default_rng(0), num_bad=0)
    page = page_of([evaluated(tmp_path / "data", tmp_path / "run")], tmp_path / "page")
    assert "no defective test image: nothing to measure" in page
    outcomes = {image["runs"][0]["outcome"] for image in data_of(page)["images"]}
    assert outcomes == {"not judged"}


def test_an_older_run_without_maps_has_a_page_without_pictures(run: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "results.gallery.npz").unlink()
    record = json.loads((old / "results.json").read_text())
    kept = ("dataset", "protocol", "categories", "mean", "n")
    (old / "results.json").write_text(json.dumps({key: record[key] for key in kept}))
    page = page_of([old], tmp_path / "page")
    assert "kept no maps: tested before there were reports" in page
    assert "image ROC, bottle" in page
    assert 'id="gallery-data"' not in page


def test_photographs_that_have_gone_are_asked_for(
    mvtec_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, moved = tmp_path / "data", tmp_path / "moved"
    shutil.copytree(mvtec_root, root)
    folder = evaluated(root, tmp_path / "run")
    root.rename(moved)
    page = page_of([folder], tmp_path / "without")
    assert "12 photographs were not found. Make the report again with --root" in page
    assert all(image["photo"] is None and image["runs"][0]["map"]
               for image in data_of(page)["images"])  # fmt: skip
    assert "12 of 12 photographs are not below" in " ".join(capsys.readouterr().out.split())
    again = page_of([folder], tmp_path / "with", f"--root={moved}")
    assert all(image["photo"] for image in data_of(again)["images"])


def test_pictures_keep_to_their_size_and_the_page_says_how_many(run: Path, tmp_path: Path) -> None:
    page = page_of([run], tmp_path, "--max_megabytes=0.02")
    data = data_of(page)
    assert 0 < len(data["images"]) < 12
    assert (
        f"{len(data['images'])} of 12 test images: the pictures of a page may take 0.02 MB" in page
    )
    assert sum(map(len, re.findall(r"data:image[^\"]+", page))) <= 20_000


def test_pictures_may_lie_beside_the_page(run: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    page = page_of([run], tmp_path, "--pictures=folder")
    assert "data:image" not in page
    addresses = {image["photo"] for image in data_of(page)["images"]}
    assert len(addresses) == 12
    assert all((tmp_path / address).is_file() for address in addresses)


def test_pictures_in_a_folder_have_room_of_their_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_MEGABYTES["folder"] > MAX_MEGABYTES["embedded"]
    monkeypatch.setitem(MAX_MEGABYTES, "embedded", 0.001)
    assert "All 12 test images." in page_of([run], tmp_path / "most", "--pictures=folder")
    monkeypatch.setitem(MAX_MEGABYTES, "folder", 0.02)
    few = page_of([run], tmp_path / "few", "--pictures=folder")
    assert "pictures of a page may take 0.02 MB (--max_megabytes)" in few
    given = "--max_megabytes=1"
    assert "All 12 test images." in page_of([run], tmp_path / "all", "--pictures=folder", given)


def test_few_maps_are_kept_of_many_images(mvtec_root: Path, tmp_path: Path) -> None:
    folder = evaluated(mvtec_root, tmp_path / "run", "--num_kept=6")
    page = page_of([folder], tmp_path / "page")
    assert len(data_of(page)["images"]) <= 6
    assert re.search(r"\d of 12 test images: the tests kept the maps of \d \(--num_kept\)", page)
    none = evaluated(mvtec_root, tmp_path / "none", "--num_kept=0")
    assert not (none / "results.gallery.npz").exists()


def test_a_training_run_alone_has_its_curves(tmp_path: Path) -> None:
    (tmp_path / "amdm").mkdir()
    lines = ["epoch,step,train/loss,train/<i>x", "0,9,1.0,2", "0,19,0.5,3", "1,29,0.25,5"]
    (tmp_path / "amdm" / "metrics.csv").write_text("\n".join(lines))
    page = page_of([tmp_path / "amdm"], tmp_path / "page")
    assert "1 further figures" in page
    assert "<i>x" not in page
    assert escape("<i>x") in page


def test_what_cannot_be_reported_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, given = f"--out={tmp_path / 'page'}", str(run)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "index.html").write_text("mine")
    theirs = tmp_path / "seen" / "pictures" / "00000.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    other = tmp_path / "data"
    write_mvtec(other, np.random.default_rng(0), categories=("screw",), num_train=0)
    screw = evaluated(other, tmp_path / "screw")
    untrained = tmp_path / "untrained"
    untrained.mkdir()
    (untrained / "metrics.csv").write_text("epoch,step\n0,9\n")
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "results.gallery.npz").write_bytes(b"PK")
    strange = [tmp_path / f"strange_{i}" for i in range(2)]
    for folder, file in zip(strange, ("results.images.npz", "results.gallery.npz"), strict=True):
        shutil.copytree(run, folder)
        shutil.copy(screw / file, folder / file)
    halved = tmp_path / "halved"
    halved.mkdir()
    (halved / "metrics.csv").write_text("epoch,step,train/loss\n0,,1.0\n")
    for args, sentence in (
        ([given, str(run / "results.json"), out], "is given twice. Give each run once"),
        ([str(strange[0]), out], "'results.images.npz' beside it are of different tests"),
        ([str(strange[1]), out], "'results.gallery.npz' beside it are of different tests"),
        ([str(halved), out], "is not a metrics.csv of `omiad fit` (could not convert string"),
        ([str(tmp_path / "no"), out], "No run folder at"),
        ([str(tmp_path / "empty"), out], "holds no run: neither results.json"),
        ([given, f"--out={tmp_path / 'file'}"], "is a file. Give --out a folder"),
        ([given, f"--out={tmp_path / 'done'}"], "already holds a page. Choose another --out"),
        ([given, out, "--max_megabytes=0"], "--max_megabytes must be above 0"),
        ([given, out, f"--root={tmp_path / 'no'}"], "Check --root"),
        (
            [given, f"--out={tmp_path / 'seen'}", "--pictures=folder"],
            "seen/pictures' is there already. Choose another --out",
        ),
        ([given, str(screw), out], "share no category"),
        ([str(untrained), out], "no figure was logged yet"),
        ([str(broken), out], "cannot be read as the pictures of a test"),
    ):
        assert sentence in error_of(["report", *args], capsys)
    assert (tmp_path / "done" / "index.html").read_text() == theirs.read_text() == "mine"
    assert not (tmp_path / "page").exists()


def test_mistakes_of_any_run_fill_a_page_first(mvtec_root: Path, tmp_path: Path) -> None:
    runs = [evaluated(mvtec_root, tmp_path / n, quality=q) for n, q in (("a", 20), ("b", 0.0))]
    images = data_of(page_of(runs, tmp_path / "all"))["images"]
    wrong = [any(r["outcome"] in ("miss", "false alarm") for r in i["runs"]) for i in images]
    assert not any(i["runs"][0]["outcome"] in ("miss", "false alarm") for i in images)
    assert 0 < sum(wrong) < 12
    assert wrong == sorted(wrong, reverse=True)


def test_the_best_of_what_is_shown_at_first_is_bold(tmp_path: Path) -> None:
    names = sorted(PUBLISHED["mvtec"].categories)
    write_mvtec(tmp_path / "data", np.random.default_rng(0), categories=names, num_train=0,
                num_good=1, num_bad=1)  # fmt: skip
    page = page_of([evaluated(tmp_path / "data", tmp_path / "run", quality=0.0)], tmp_path / "page")
    rows = re.findall(r'<tr[^>]*data-shown="(\d)"[^>]*>(.*?)</tr>', page)
    hidden = [row for shown, row in rows if shown == "0"]
    assert hidden
    assert not any("<b>" in row for row in hidden)
    bold = {name: sum("<b>" in row for _, row in rows if f">{name}<" in row) for name in names}
    assert min(bold.values()) > 0


def test_figures_on_other_images_are_said_not_to_compare(
    run: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(mvtec_root, root)
    shutil.rmtree(root / "cable")
    other = evaluated(root, tmp_path / "fewer")
    page = page_of([run, other], tmp_path / "page")
    assert "tested on different images" in page
    assert "peer, bank: 12 of 2 categories; peer, fewer: 6 of 1 categories." in page
    assert "tested on different images" not in page_of([run], tmp_path / "one")


def test_times_compare_on_one_machine_alone(run: Path, tmp_path: Path) -> None:
    def timed(name: str, kind: str, milliseconds: float, **more: Any) -> Path:
        latency = {"ms_per_image": milliseconds, "batch_size": 8, "num_batches": 3, "of": "all"}
        model = {"kind": kind, "num_steps": 1}
        return altered(run, tmp_path / name, model=model, latency=latency, **more)

    teacher, student = timed("t", "AMDM", 30), timed("s", "OmiAD", 20)
    assert "1.50 times as fast" in page_of([teacher, student], tmp_path / "same")
    elsewhere = timed("e", "OmiAD", 20, hardware="another")
    page = page_of([teacher, elsewhere], tmp_path / "differs")
    assert "times as fast" not in page
    assert "measured differently" in page


def test_students_stand_beside_their_own_teachers(run: Path, tmp_path: Path) -> None:
    def pairs(*runs: tuple[str, int, dict[str, str] | None]) -> list[tuple[str, str]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folders = [
            altered(run, folder / f"{kind}{i}", model={"kind": kind}, seed=seed, weights=weights)
            for i, (kind, seed, weights) in enumerate(runs)
        ]
        page = page_of(folders, folder / "page")
        return re.findall(r">(?:AMDM, )?(\w+) \(teacher\).*?>(?:OmiAD, )?(\w+) \(student\)", page)

    def old(kind: str, seed: int) -> tuple[str, int, None]:
        return kind, seed, None

    assert pairs(old("AMDM", 0), old("OmiAD", 1)) == [("AMDM", "OmiAD")]
    of_two = pairs(old("AMDM", 0), old("AMDM", 1), old("OmiAD", 1), old("OmiAD", 0))
    assert of_two == [("AMDM1", "OmiAD2"), ("AMDM0", "OmiAD3")]
    assert pairs(old("AMDM", 0), old("OmiAD", 0), old("OmiAD", 1)) == [("AMDM", "OmiAD1")]
    first, second = ("AMDM", 0, {"model": "1"}), ("AMDM", 0, {"model": "2"})
    student = ("OmiAD", 5, {"model": "3", "teacher": "2"})
    assert pairs(first, second, student) == [("AMDM1", "OmiAD")]
    assert pairs(first, student) == []


def test_trainings_in_folders_of_one_name_are_both_shown(tmp_path: Path) -> None:
    folders = [tmp_path / parent / "amdm" / "version_0" for parent in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text("epoch,step,train/loss\n0,9,1.0\n0,19,0.5\n")
    assert page_of(folders, tmp_path / "page").count("loss, as logged") == 2


def test_names_need_not_be_text(mvtec_root: Path, tmp_path: Path) -> None:
    root, name = tmp_path / "data", os.fsdecode(b"\xff.png")
    shutil.copytree(mvtec_root, root)
    good = root / "cable" / "test" / "good"
    next(good.iterdir()).rename(good / name)
    page = page_of([evaluated(root, tmp_path / os.fsdecode(b"run\xff"))], tmp_path / "page")
    assert f"cable/test/good/{name}" in {image["name"] for image in data_of(page)["images"]}
    assert r"run\udcff" in page
