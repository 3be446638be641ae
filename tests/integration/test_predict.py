"""`omiad predict` with a model that decides: its table, pictures, and a watched folder."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import ExifTags, Image
from test_cli import read_table

from omiad.cli import main
from omiad.detector import Detector
from omiad.errors import InputError
from omiad.inspection import Inspection
from omiad.learning import learn_products
from omiad.photographs import read_photograph
from omiad.prediction import photographs, watching
from omiad.prediction.journal import WATCHED
from omiad.record import read_results


@pytest.fixture(scope="module")
def model(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows bottle and cable, with a false-alarm rate of 1 in 5."""
    folder = tmp_path_factory.mktemp("model")
    data = tiny.data_of(mvtec_root, folder)
    checkpoint = tiny.saved(tiny.fit(tiny.amdm(), data, folder, 2))
    detector = Detector.load(checkpoint)
    positions: dict[str, list[int]] = {"bottle": [], "cable": []}
    for i, sample in enumerate(data.samples("train")):
        positions[sample.category].append(i)
    learn_products(detector, data.features("train"), positions, {})
    detector.save(folder / "model.ckpt", like=checkpoint)
    return folder / "model.ckpt"


@pytest.fixture
def photos(mvtec_root: Path, tmp_path: Path) -> Path:
    """The test photographs of both products, a turned one of another size, and a foreign one."""
    folder = tmp_path / "photos"
    for name in ("bottle", "cable"):
        shutil.copytree(mvtec_root / name / "test", folder / name)
    source = next((folder / "bottle/hole").glob("*.png"))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.open(source).resize((60, 40)).save(folder / "turned.jpg", exif=exif)
    noise = np.random.default_rng(0).integers(0, 2, (16, 16, 3), np.uint8) * 255
    Image.fromarray(noise).save(folder / "z_foreign.png")
    return folder


def predict(model: Path, photos: Path | str, *options: str) -> None:
    main(["predict", str(model), str(photos), "--device=cpu", *options])


def inspected(model: Path, paths: Sequence[str], **options: Any) -> list[Inspection]:
    detector = Detector.load(model)
    read = [read_photograph(Path(path), 32) for path in paths]
    images, sizes = torch.stack([image for image, _ in read]), [size for _, size in read]
    return detector.inspect(images, sizes=sizes, **options)


def test_the_table_says_what_the_detector_decides(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    predict(model, photos, f"--output={tmp_path}/csv", "--num_workers=0")
    predict(model, photos, f"--output={tmp_path}/json", "--format=jsonl", "--batch_size=3")
    rows = read_table(tmp_path / "csv/predictions.csv")
    lines = [*map(json.loads, (tmp_path / "json/predictions.jsonl").read_text().splitlines())]
    found = inspected(model, [row["image"] for row in rows])
    assert len(rows) == 14
    assert {each.decision for each in found} == {"ok", "defect", "unknown product"}
    for row, line, right in zip(rows, lines, found, strict=True):
        assert row["decision"] == line["decision"] == right.decision
        assert (row["product"] or None) == line["product"] == right.category
        assert np.float32(row["score"]) == np.float32(line["score"]) == np.float32(right.score)
        if right.threshold is None:
            assert (row["threshold"], row["p_value"]) == ("", "")
        else:
            assert float(row["p_value"]) == pytest.approx(right.p_value)
            is_above = float(row["score"]) > float(row["threshold"])
            assert is_above == (right.decision == "defect")
        boxes = [[region[side] for side in ("left", "top", "right", "bottom", "area")]
                 for region in line["regions"]]  # fmt: skip
        assert boxes == [[*each.box, each.area] for each in right.regions]
        assert int(row["regions"]) == len(boxes)
        if boxes:
            largest = max(boxes, key=lambda box: box[-1])
            sides = ("left", "top", "right", "bottom", "area")
            assert [int(row[side]) for side in sides] == largest


def test_a_known_product_and_another_rate_are_taken(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    options = (f"--output={tmp_path}/out", "--category=cable", "--false_alarms=0.5")
    predict(model, photos, *options)
    rows = read_table(tmp_path / "out/predictions.csv")
    found = inspected(model, [r["image"] for r in rows], category="cable", false_alarms=0.5)
    assert {row["product"] for row in rows} == {"cable"}
    assert [row["decision"] for row in rows] == [each.decision for each in found]


def test_pictures_have_the_size_of_the_photograph(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--masks", "--maps", "--overlays=all", "--category=bottle", "--false_alarms=0.9")
    predict(model, photos / "turned.jpg", f"--output={out}", *options)
    (row,) = read_table(out / "predictions.csv")
    (found,) = inspected(model, [row["image"]], category="bottle", false_alarms=0.9)
    assert row["decision"] == "defect"
    with Image.open(out / row["overlay"]) as overlay, Image.open(out / row["mask"]) as mask:
        assert overlay.size == mask.size == found.size == (40, 60)
        assert np.array_equal(np.asarray(mask), found.mask() * 255)
    values = np.load(out / row["map"])
    assert values.dtype == np.float32
    assert np.array_equal(values, found.anomaly_map)


@pytest.mark.parametrize(("overlays", "drawn"), [("defects", {"defect"}), ("none", set())])
def test_overlays_are_drawn_of_those_that_were_asked_for(
    model: Path, photos: Path, tmp_path: Path, overlays: str, drawn: set[str]
) -> None:
    predict(model, photos, f"--output={tmp_path}/out", f"--overlays={overlays}")
    rows = read_table(tmp_path / "out/predictions.csv")
    assert {row["decision"] for row in rows if row["overlay"]} == drawn
    assert all(row["overlay"] for row in rows if row["decision"] in drawn)


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--category=nut", "no product 'nut'. It knows bottle, cable"),
        ("--false_alarms=0.1", "'bottle': 4 normal photographs support"),
        ("--false_alarms=2", "--false_alarms must lie between 0 and 1"),
        ("--watch", "no photograph or folder at 'GONE'"),
    ],
)
def test_what_the_model_does_not_know_is_named(
    model: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    named: str,
) -> None:
    with pytest.raises(SystemExit, match="2"):
        predict(model, "GONE" if "GONE" in named else photos, f"--output={tmp_path}/out", option)
    assert named in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def watched(
    monkeypatch: pytest.MonkeyPatch, model: Path, photos: Path, out: Path, *arrivals: Any
) -> list[dict[str, str]]:
    """Watch a folder: before each look something arrives; after all looks comes Ctrl-C."""
    steps = iter(arrivals)

    def look(given: Sequence[str]) -> list[photographs.Photograph]:
        try:
            next(steps)()
        except StopIteration:
            raise KeyboardInterrupt from None
        return photographs.look(given)

    monkeypatch.setattr(watching, "look", look)
    monkeypatch.setattr(watching, "SETTLED", 0.0)
    monkeypatch.setattr(watching, "INTERVAL", 0.0)
    predict(model, photos, f"--output={out}", "--watch")
    return read_table(out / "predictions.csv")


def test_a_watched_folder_is_scored_until_ctrl_c_and_again_from_there(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source, line, out = photos / "bottle/hole", tmp_path / "line", tmp_path / "out"
    first, second, third = sorted(source.glob("*.png"))
    line.mkdir()

    def arrive(path: Path) -> Any:
        return lambda: shutil.copy(path, line)

    rows = watched(monkeypatch, model, line, out, lambda: None, arrive(first), arrive(second))
    assert [Path(row["image"]).name for row in rows] == [first.name, second.name]
    assert (out / "index.html").is_file()
    printed = " ".join(" ".join(capfd.readouterr()).split())
    assert f"{first.name}: {rows[0]['decision']}" in printed

    (out / "predictions.csv").write_text("cut off by a loss of pow")
    half = line / third.name

    def write_half() -> None:
        half.write_bytes(third.read_bytes()[:200])

    steps = (write_half, lambda: None, arrive(third), lambda: None)
    rows = watched(monkeypatch, model, line, out, *steps)
    assert [Path(row["image"]).name for row in rows] == [first.name, second.name, third.name]
    assert not rows[2]["error"]
    right = inspected(model, [row["image"] for row in rows])
    assert [row["decision"] for row in rows] == [each.decision for each in right]
    assert (out / WATCHED).is_file()


def test_without_watch_a_watched_folder_is_refused(
    model: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watched(monkeypatch, model, photos, tmp_path / "out")
    with pytest.raises(SystemExit, match="2"):
        predict(model, photos, f"--output={tmp_path}/out")
    assert "already holds predictions" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a test of the model."""
    folder = tmp_path_factory.mktemp("tested") / "run"
    options = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")
    main(["test", f"--ckpt_path={model}", f"--run_dir={folder}", *options])
    return folder


def test_a_test_and_its_report_count_the_decisions(
    model: Path, run: Path, mvtec_root: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page"
    decided = read_results(run / "results.json")["decisions"]
    for name in ("bottle", "cable"):
        paths = sorted((mvtec_root / name / "test").rglob("*.png"))
        found = inspected(model, [str(path) for path in paths], category=name)
        defective = ["good" not in path.parts for path in paths]
        is_found = [each.decision == "defect" for each in found]
        (row,) = decided[name]
        assert row["rate"] == pytest.approx(0.2)
        assert found[0].threshold is not None
        assert row["threshold"] == pytest.approx(found[0].threshold.image)
        assert (row["num_good"], row["num_defective"]) == (3, 3)
        assert row["found"] == sum(np.logical_and(is_found, defective))
        assert row["false_alarms"] == sum(is_found) - row["found"]
    main(["report", str(run), f"--out={page}"])
    text = (page / "index.html").read_text()
    assert "Decisions of" in text
    assert f"{decided['bottle'][0]['found']} of 3" in text


@pytest.mark.parametrize("change", [{"found": 4}, {"false_alarms": -1}, {"rate": 1.0}])
def test_decisions_that_cannot_be_are_refused(
    run: Path, tmp_path: Path, change: dict[str, float]
) -> None:
    record = json.loads((run / "results.json").read_text())
    record["decisions"]["bottle"][0] |= change
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"results\.json.* impossible rate or number"):
        read_results(tmp_path / "results.json")
