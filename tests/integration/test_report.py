"""`omiad report`, in process, on the maps of a method for tiny data sets in the MVTec layout."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_of_others import evaluated
from synthetic import write_mvtec

from omiad.cli import main
from omiad.data.layouts.published import PUBLISHED
from omiad.report.pictures import MAX_MEGABYTES


def page_of(runs: Sequence[Path], out: Path, *extra: str) -> str:
    main(["report", *map(str, runs), f"--out={out}", *extra])
    return (out / "index.html").read_text(encoding="utf-8")


def small_data(root: Path, *categories: str, num_bad: int = 1) -> Path:
    """Write one normal test image, some defective ones and no training image of each category."""
    write_mvtec(root, np.random.default_rng(0), categories=categories, num_train=0, num_good=1,
                num_bad=num_bad)  # fmt: skip
    return root


def altered(run: Path, folder: Path, **more: Any) -> Path:
    """Return a copy of a run whose results.json says something else."""
    shutil.copytree(run, folder)
    file = folder / "results.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    return folder


def data_of(page: str) -> Any:
    return json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])


def logged(folder: Path, *lines: str) -> Path:
    """Return the folder of a fit that logged these lines."""
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def run(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluated(mvtec_root, tmp_path_factory.mktemp("peer") / "bank")


@pytest.fixture(scope="module")
def page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of([run], tmp_path_factory.mktemp("page"))


def test_each_image_has_the_outcome_of_its_categorys_threshold(page: str) -> None:
    data = data_of(page)
    assert len(data["images"]) == 12
    for image in data["images"]:
        [found] = image["runs"]
        reached = found["score"] >= data["runs"][0]["thresholds"][image["category"]]
        names = ("passed", "false alarm") if image["defect"] == "good" else ("miss", "detected")
        assert found["outcome"] == names[reached]


def test_runs_share_the_photographs_and_mistakes_come_first(
    run: Path, mvtec_root: Path, page: str, tmp_path: Path
) -> None:
    shutil.copytree(mvtec_root / "bottle", tmp_path / "data" / "bottle")
    other = evaluated(tmp_path / "data", tmp_path / "fewer", "--blur_sigma=1", quality=0.0)
    both = page_of([run, other], tmp_path / "page")
    data = data_of(both)
    assert [r["name"] for r in data["runs"]] == ["peer, bank", "peer, fewer"]
    assert [image["runs"][1] is None for image in data["images"]].count(True) == 6
    outcomes = [[r and r["outcome"] for r in image["runs"]] for image in data["images"]]
    wrong = ["miss" in found or "false alarm" in found for found in outcomes]
    assert 0 < sum(wrong) < 12
    assert wrong == sorted(wrong, reverse=True)
    for said in ("measured in different ways", "tested on different images"):
        assert said in both
        assert said not in page
    assert "peer, bank: 12 images of 2 categories; peer, fewer: 6 images of 1 categories." in both


def test_charts_and_tables_can_be_heard(run: Path, page: str) -> None:
    of_bottle = json.loads((run / "results.json").read_text())["categories"]["bottle"]
    threshold = data_of(page)["runs"][0]["thresholds"]["bottle"]
    rates = f"pixel ROC of bottle; peer, bank: pixel AUROC {100 * of_bottle['pixel_auroc']:.1f} %"
    counts = "peer, bank on bottle; 3 normal and 3 defective test images"
    for label in (rates, f"image scores of {counts}; threshold {threshold:.4g}"):
        assert f'role="img" aria-label="{label}"' in page
    for heading in ("peer, bank", "bottle"):
        assert page.count(f'<th scope="row">{heading}</th>') == 1


def test_a_page_fetches_nothing_and_no_identifier_occurs_twice(page: str) -> None:
    assert "default-src 'none'" in unescape(page)
    assert not re.findall(r"(?<!xlink:)(?:src|href)=[\"']?(?!#|data:)[^\"'> ]+", page)
    assert "://" not in page
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert set(re.findall(r'(?:xlink:href="|url\()#([\w-]+)', page)) <= set(names)


def test_missing_masks_are_not_drawn_as_empty_ones(tmp_path: Path) -> None:
    root = small_data(tmp_path / "data", "bottle", "cable")
    shutil.rmtree(root / "cable" / "ground_truth")
    page = page_of([evaluated(root, tmp_path / "run")], tmp_path / "page")
    assert "cable: 1 of 1 defective test images have no mask" in page
    assert "pixel ROC of bottle" in page
    assert "pixel ROC of cable" not in page
    masks = {(image["category"], image["defect"] != "good", image["has_mask"], bool(image["mask"]))
             for image in data_of(page)["images"]}  # fmt: skip
    assert masks == {("bottle", False, True, False), ("bottle", True, True, True),
                     ("cable", False, True, False), ("cable", True, False, False)}  # fmt: skip


def test_the_best_figure_shown_at_first_is_bold(tmp_path: Path) -> None:
    names = sorted(PUBLISHED["mpdd"].categories)
    run = evaluated(small_data(tmp_path / "data", *names), tmp_path / "run", quality=0.0)
    page = page_of([run], tmp_path / "page")
    rows = re.findall(r'<tr[^>]*data-shown="(\d)"[^>]*>(.*?)</tr>', page, flags=re.DOTALL)
    assert {"<b>" in row for shown, row in rows if shown == "0"} == {False}
    for name in names:
        assert any("<b>" in row for _, row in rows if f">{name}<" in row)
    assert page.count("<details") == 6


def test_without_defects_nothing_is_judged(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data", "part", num_bad=0)
    page = page_of([evaluated(data, tmp_path / "run")], tmp_path / "page")
    assert "no defective test image" in page
    [image] = data_of(page)["images"]
    assert image["runs"][0]["outcome"] == "not judged"
    assert "All 1 test images." in page


def test_lost_photographs_are_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, moved = small_data(tmp_path / "data", "part"), tmp_path / "moved"
    folder = evaluated(root, tmp_path / "run")
    root.rename(moved)
    page = page_of([folder], tmp_path / "without")
    assert "2 of 2 photographs were not found below" in page
    assert any("--root" in message for message in caplog.messages)
    assert not any(image["photo"] for image in data_of(page)["images"])
    again = page_of([folder], tmp_path / "with", f"--root={moved}")
    assert all(image["photo"] for image in data_of(again)["images"])


def test_pictures_keep_to_their_size_and_the_page_says_how_many(run: Path, tmp_path: Path) -> None:
    page = page_of([run], tmp_path, "--max_megabytes=0.02")
    shown = len(data_of(page)["images"])
    assert 0 < shown < 12
    assert f"{shown} of 12 test images: the pictures of a page may take 0.02 MB" in page
    assert sum(map(len, re.findall(r"data:image[^\"]+", page))) <= 20_000


def test_pictures_beside_the_page_have_a_larger_limit(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAX_MEGABYTES, "embedded", 0.001)
    (tmp_path / "pictures").mkdir()  # an empty folder is nobody's
    page = page_of([run], tmp_path, "--pictures=folder")
    assert "data:image" not in page
    addresses = {image["photo"] for image in data_of(page)["images"]}
    assert len(addresses) == 12
    assert all((tmp_path / address).is_file() for address in addresses)


def test_few_maps_are_kept_of_many_images(mvtec_root: Path, tmp_path: Path) -> None:
    few, none = (evaluated(mvtec_root, tmp_path / n, f"--num_kept={n}") for n in "60")
    page = page_of([few], tmp_path / "few")
    assert len(data_of(page)["images"]) <= 6
    assert re.search(r"\d of 12 test images: the tests kept the maps of \d \(--num_kept\)", page)
    page = page_of([none], tmp_path / "none")
    assert "peer, 0 kept no maps (--num_kept 0)" in page
    assert 'id="gallery-data"' not in page


def test_a_training_run_alone_has_its_curves(tmp_path: Path) -> None:
    lines = ("epoch,step,train/loss,train/<i>x", "0,9,1.0,2", "0,19,0.5,3", "1,29,0.25,5")
    fits = [logged(tmp_path / name / "amdm" / "version_0", *lines) for name in "ab"]
    page = page_of(fits, tmp_path / "page")
    assert page.count("1 further figures") == page.count("loss over 3 logged steps") == 2
    assert "<i>x" not in page
    assert escape("<i>x") in page


def test_students_are_compared_with_their_own_teachers(tmp_path: Path) -> None:
    run = evaluated(small_data(tmp_path / "data", "part"), tmp_path / "run")

    def tested(name: str, kind: str, milliseconds: float, **more: Any) -> Path:
        latency = {"ms_per_image": milliseconds, "batch_size": 8, "num_batches": 3, "of": "all"}
        model = {"kind": kind, "num_steps": 1}
        return altered(run, tmp_path / name, model=model, latency=latency, **more)

    first = tested("first", "AMDM", 10, weights={"model": "1"})
    second = tested("second", "AMDM", 30, weights={"model": "2"})
    pupil = tested("pupil", "OmiAD", 20, weights={"model": "3", "teacher": "2"})
    page = page_of([first, second, pupil], tmp_path / "page")
    pairs = re.findall(r">([\w, ]+) \(teacher\), one step.*?>(\w+) \(student\)", page)
    assert pairs == [("AMDM, second", "OmiAD")]
    assert "1.50 times as fast" in page
    elsewhere = tested("e", "OmiAD", 20, weights={"teacher": "2"}, hardware="another")
    apart = page_of([second, elsewhere], tmp_path / "apart")
    assert "times as fast" not in apart
    assert "measured differently" in apart


def test_names_need_not_be_text(tmp_path: Path) -> None:
    root, name = small_data(tmp_path / "data", "part"), os.fsdecode(b"\xff.png")
    good = root / "part" / "test" / "good"
    next(good.iterdir()).rename(good / name)
    page = page_of([evaluated(root, tmp_path / os.fsdecode(b"run\xff"))], tmp_path / "page")
    assert f"part/test/good/{name}" in {image["name"] for image in data_of(page)["images"]}
    assert r"run\udcff" in page


def test_what_cannot_be_reported_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"--out={tmp_path / 'page'}"
    (tmp_path / "seen" / "pictures" / "theirs").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    screw = evaluated(small_data(tmp_path / "data", "screw"), tmp_path / "screw")
    untrained = logged(tmp_path / "untrained", "epoch,step", "0,9")
    halved = logged(tmp_path / "halved", "epoch,step,train/loss", "0,,1.0")
    images, gallery = (altered(run, tmp_path / name) for name in ("images", "gallery"))
    for folder in (images, gallery):
        shutil.copy(screw / f"results.{folder.name}.npz", folder)
    for args, named in (
        ([run, run / "results.json", out], "results.json' is given twice"),
        ([images, out], "results.images.npz"),
        ([gallery, out], "results.gallery.npz"),
        ([halved, out], "metrics.csv"),
        ([tmp_path / "no", out], "No run folder at"),
        ([tmp_path / "seen", out], "holds neither results.json"),
        ([run, f"--out={tmp_path / 'file'}"], "Give --out a folder"),
        ([run, out, "--max_megabytes=0"], "--max_megabytes must be above 0"),
        ([run, out, f"--root={tmp_path / 'no'}"], "Check --root"),
        ([run, f"--out={tmp_path / 'seen'}", "--pictures=folder"], "seen/pictures' exists"),
        ([run, screw, out], "share no category"),
        ([untrained, out], "untrained have logged no training figure"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["report", *map(str, args)])
        assert named in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "page").exists()
