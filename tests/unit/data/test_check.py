"""`omiad data check` finds what was planted, and nothing in a data set without faults."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic import write_folder, write_mvtec, write_realiad, write_visa

from omiad.cli import main
from omiad.data.check import check
from omiad.data.check.duplicates import Pair, identical, near
from omiad.data.check.facts import gather
from omiad.data.check.faults import Fault, find
from omiad.data.layouts import Index, index_dataset
from omiad.data.layouts.published import PUBLISHED
from omiad.types import Sample


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "data"
    write_mvtec(root, np.random.default_rng(0), num_train=10, num_good=4)
    return root


@pytest.fixture
def root(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def faults_of(root: Path) -> list[Fault]:
    index = index_dataset(root)
    return find(root, index, gather(index.samples, num_workers=0))


def test_a_data_set_without_faults_has_none(whole):
    assert faults_of(whole) == []


@pytest.mark.parametrize("write", [write_visa, write_realiad, write_folder])
def test_other_layouts_without_faults_have_no_errors(tmp_path, write):
    write(tmp_path / "data", np.random.default_rng(0))
    found = faults_of(tmp_path / "data")
    published = {"count", "category missing"}  # of two categories, with a dozen images
    assert {f.kind for f in found if f.level == "error"} <= published


def truncate(root: Path) -> None:
    path = root / "bottle/train/good/003.png"
    path.write_bytes(path.read_bytes()[:-200])


def text(root: Path) -> None:
    (root / "bottle/test/hole/001.png").write_text("not an image")


def shrink_mask(root: Path) -> None:
    path = root / "cable/ground_truth/hole/000_mask.png"
    Image.open(path).resize((16, 32)).save(path)


def clear_mask(root: Path) -> None:
    Image.new("L", (32, 32)).save(root / "cable/ground_truth/hole/000_mask.png")


def break_mask(root: Path) -> None:
    (root / "cable/ground_truth/hole/000_mask.png").write_bytes(b"x")


def rename_mask(root: Path) -> None:
    path = root / "cable/ground_truth/hole/000_mask.png"
    path.rename(path.with_name("7_mask.png"))


def leak(root: Path) -> None:
    shutil.copy(root / "bottle/train/good/003.png", root / "bottle/test/good/copy.png")


def retouch(root: Path) -> None:
    image = Image.open(root / "bottle/train/good/003.png")
    # The synthetic images are all noise; JPEG would change them as much as another photograph.
    image.point(lambda value: value ^ 1).save(root / "bottle/test/good/copy.png")


def repeat(root: Path) -> None:
    shutil.copy(root / "bottle/train/good/003.png", root / "bottle/train/good/copy.png")


def contradict(root: Path) -> None:
    shutil.copy(root / "bottle/test/hole/001.png", root / "bottle/test/good/copy.png")


def unmask(root: Path) -> None:
    (root / "cable/ground_truth/hole/001_mask.png").unlink()


def unmask_all(root: Path) -> None:
    shutil.rmtree(root / "cable/ground_truth")


def another_defect(root: Path) -> None:
    shutil.copytree(root / "cable/test/good", root / "cable/test/bend")
    shutil.rmtree(root / "cable/test/good")


def gray(root: Path) -> None:
    path = root / "cable/train/good/001.png"
    Image.open(path).convert("L").save(path)


def all_gray(root: Path) -> None:
    for path in [*root.glob("cable/train/*/*.png"), *root.glob("cable/test/*/*.png")]:
        Image.open(path).convert("L").save(path)


def deep(root: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65535, (32, 32)).astype(np.uint16)
    Image.fromarray(wide).save(root / "cable/train/good/001.png")


def transparent(root: Path) -> None:
    path = root / "cable/train/good/001.png"
    Image.open(path).convert("RGBA").save(path)


def printed(root: Path) -> None:
    path = root / "cable/train/good/001.png"
    Image.open(path).convert("CMYK").save(path.with_suffix(".jpg"))
    path.unlink()


def turn(root: Path) -> None:
    path = root / "cable/train/good/001.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif)


def enlarge(root: Path) -> None:
    path = root / "cable/train/good/001.png"
    Image.open(path).resize((40, 48)).save(path)


def one_left(root: Path) -> None:
    for i in range(1, 10):
        (root / f"cable/train/good/{i:03}.png").unlink()


def no_defects(root: Path) -> None:
    shutil.rmtree(root / "cable/test/hole")
    shutil.rmtree(root / "cable/ground_truth")


@pytest.mark.parametrize(
    ("plant", "level", "kind", "where", "words"),
    [
        (truncate, "error", "unreadable image", "bottle/train/good/003.png", "cannot be read"),
        (text, "error", "unreadable image", "bottle/test/hole/001.png", "cannot be read"),
        (shrink_mask, "error", "mask size", "cable/ground_truth/hole/000_mask.png", "16 x 32"),
        (clear_mask, "error", "empty mask", "cable/ground_truth/hole/000_mask.png", "no pixel"),
        (break_mask, "error", "unreadable mask", "cable/ground_truth/hole/000_mask.png", "read"),
        (rename_mask, "error", "stray mask", "cable/ground_truth/hole/7_mask.png", "No test image"),
        (rename_mask, "error", "no mask", "cable/test/hole/000.png", "others of its defect"),
        (unmask, "error", "no mask", "cable/test/hole/001.png", "others of its defect"),
        (unmask_all, "note", "no masks", "cable", "image figures only"),
        (another_defect, "warning", "no masks", "cable/bend", "None of the 4 images"),
        (leak, "error", "train in test", "bottle/test/good/copy.png", "train/good/003.png"),
        (retouch, "warning", "near duplicate", "bottle/test/good/copy.png", "train/good/003.png"),
        (repeat, "warning", "duplicate", "bottle/train/good/copy.png", "train/good/003.png"),
        (contradict, "error", "two labels", "bottle/test/hole/001.png", "another label"),
        (gray, "note", "grayscale", "cable", "'cable/train/good/001.png'): repeated to three"),
        (all_gray, "note", "grayscale", "cable", "17 of 17 images: repeated to three channels"),
        (deep, "note", "16-bit", "cable", "1 of 17 images (the first: 'cable/train"),
        (transparent, "note", "alpha", "cable", "without their transparency"),
        (printed, "note", "CMYK", "cable", "converted to RGB"),
        (turn, "note", "rotated by EXIF", "cable", "turned upright"),
        (enlarge, "note", "unequal sizes", "cable", "2 sizes, 32 x 32 to 40 x 48"),
        (one_left, "warning", "imbalance", "cable", "'bottle' has 10"),
        (no_defects, "note", "cannot be measured", "cable", "No defective test images"),
    ],
)
def test_a_planted_fault_is_named_with_its_place_and_fix(
    root: Path, plant: Callable[[Path], None], level: str, kind: str, where: str, words: str
) -> None:
    plant(root)
    (fault,) = [f for f in faults_of(root) if f.kind == kind]
    assert (fault.level, fault.where) == (level, where)
    assert words in fault.what
    assert bool(fault.fix) == (level != "note")
    kinds = {f.kind for f in faults_of(root)}
    assert len(kinds - {"no mask", "cannot be measured"}) <= 1 or plant is rename_mask


def test_a_stray_mask_is_told_the_name_of_the_only_image_without_one(root):
    rename_mask(root)
    (fault,) = [f for f in faults_of(root) if f.kind == "stray mask"]
    assert fault.fix == "Name it '000_mask.png', or remove it."
    path = root / "cable/ground_truth/hole/001_mask.png"
    path.rename(path.with_name("8_mask.png"))
    fixes = {f.fix for f in faults_of(root) if f.kind == "stray mask"}
    assert fixes == {"Name it like its image, or remove it."}


def test_a_listed_image_that_is_not_there_is_named(tmp_path):
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    (tmp_path / "VisA/candle/Data/Images/Anomaly/001.JPG").unlink()
    (fault,) = [f for f in faults_of(tmp_path / "VisA") if f.kind == "missing image"]
    assert fault.where == "candle/Data/Images/Anomaly/001.JPG"
    assert "its line" in fault.fix


def listed(**counts: tuple[int, int, int]) -> Index:
    samples = [
        Sample(Path(f"{name}/{kind}/{i}.png"), None, name, defect, split)
        for name, numbers in counts.items()
        for (kind, defect, split), number in zip(
            (("a", "good", "train"), ("b", "good", "test"), ("c", "bad", "test")),
            numbers,
            strict=True,
        )
        for i in range(number)
    ]
    return Index("mvtec", "mvtec", samples)


def test_counts_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the paths below are relative to an empty folder
    published = {name: tuple(c) for name, c in PUBLISHED["mvtec"].categories.items()}
    assert [f for f in find(Path(), listed(**published), []) if f.level == "error"] == []
    published["bottle"] = (208, 20, 64)
    faults = [f for f in find(Path(), listed(**published), []) if f.level == "error"]
    assert [(f.where, f.what) for f in faults] == [
        ("bottle", "208 training images, but MVTec AD has 209."),
        ("bottle", "64 defective test images, but MVTec AD has 63."),
        ("all categories", "3628 training images in all, but MVTec AD has 3629."),
        ("all categories", "1259 defective test images in all, but MVTec AD has 1258."),
    ]
    del published["bottle"]
    faults = [f for f in find(Path(), listed(**published, screws=(9, 9, 9)), []) if f.fix]
    assert [(f.kind, f.where) for f in faults if f.kind != "imbalance"] == [
        ("category missing", "bottle"),
        ("category unknown", "screws"),
    ]


def test_near_duplicates_are_told_from_images_as_alike_as_usual(root):
    retouch(root)
    samples = index_dataset(root).samples
    facts = gather(samples, num_workers=0)
    assert list(identical(samples, facts)) == []
    (pair,) = near(samples, facts, set())
    assert samples[pair.first].image.name == "003.png"
    assert samples[pair.second].image.name == "copy.png"
    assert list(near(samples, facts, {pair})) == []
    assert isinstance(pair, Pair)


def test_workers_find_the_same(root):
    index = index_dataset(root)
    alone, shared = (gather(index.samples, num_workers=n) for n in (0, 1))
    assert [f.digest for f in alone] == [f.digest for f in shared]
    assert [f.row for f in shared] == list(range(len(shared)))


def test_the_command_prints_a_table_and_exits_by_what_it_found(root, capsys):
    main(["data", "check", f"--data.root={root}"])
    out = capsys.readouterr().out
    assert "data, mvtec layout, 2 categories, 20 training and 14 test images" in out
    assert "ok: it can be used (0 errors, 0 warnings, 0 notes)" in out
    truncate(root)
    with pytest.raises(SystemExit) as exit_info:
        main(["data", "check", f"--data.root={root}"])
    assert exit_info.value.code == 1
    out = capsys.readouterr().out
    assert "error: unreadable image (1)" in out
    assert "fix: Copy it again from its source" in out
    assert "not ok: mend the errors first (1 errors, 0 warnings, 0 notes)" in out


def test_the_table_shortens_what_the_json_lists_in_full(root, capsys):
    for path in sorted((root / "bottle/train/good").iterdir())[:7]:
        path.write_bytes(b"x")
    assert not check(str(root))
    assert "and 2 more; --json lists all" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["data", "check", f"--data.root={root}", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is False
    assert record["layout"] == "mvtec"
    assert record["categories"]["bottle"] == {"train": 10, "good": 4, "defective": 3}
    assert len(record["faults"]) == 7
    assert set(record["faults"][0]) == {"level", "kind", "where", "what", "fix"}


def test_published_counts_stand_beside_those_that_differ(tmp_path, capsys):
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    assert not check(str(tmp_path / "VisA"))
    assert "4 (of 900)" in capsys.readouterr().out


def test_the_data_set_is_synthesized_from_the_command_line(tmp_path):
    folder = tmp_path / "made"
    few = ["--num_train=1", "--num_test_good=1", "--num_test_defective=1", "--image_size=16"]
    main(["data", "synthesize", str(folder), *few, "--categories=[gear]", "--seed=3"])
    assert len(index_dataset(folder).samples) == 3
