"""`omiad data check` finds the faults that a test plants, and none in a data set without faults."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from png import png_16_bit
from synthetic import write_folder, write_mvtec, write_realiad, write_visa

from omiad.cli import main
from omiad.data.check import check
from omiad.data.check.facts import gather
from omiad.data.check.faults import Fault, find
from omiad.data.layouts import Index, few_photographs, index_dataset
from omiad.data.layouts.published import PUBLISHED
from omiad.errors import InputError
from omiad.types import Sample

TRAIN = "bottle/train/good/003.png"
GRAY = "cable/train/good/001.png"
MASK = "cable/ground_truth/hole/000_mask.png"
COPY = "bottle/test/good/copy.png"


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
    return find(root, index, gather(index.samples, num_workers=0, progress=False))


def test_a_data_set_without_faults_has_none(whole):
    assert faults_of(whole) == []


@pytest.mark.parametrize("write", [write_visa, write_realiad, write_folder])
def test_other_layouts_without_faults_have_no_errors(tmp_path, write):
    write(tmp_path / "data", np.random.default_rng(0))
    errors = {f.kind for f in faults_of(tmp_path / "data") if f.level == "error"}
    assert errors <= {"count"}  # there are two categories with a dozen images


def edit(path: str, change: Callable[[Image.Image], Image.Image]) -> Callable[[Path], None]:
    def plant(root: Path) -> None:
        with Image.open(root / path) as image:
            changed = change(image)
        changed.save(root / path)

    return plant


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: shutil.copy(root / source, root / target)


def bend(root: Path) -> None:
    (root / "cable/test/good").rename(root / "cable/test/bend")


def retouch(root: Path) -> None:
    # The synthetic images are noise, which JPEG would change as much as another photograph.
    Image.open(root / TRAIN).point(lambda value: value ^ 1).save(root / COPY)


def all_gray(root: Path) -> None:
    for path in [*root.glob("cable/train/*/*.png"), *root.glob("cable/test/*/*.png")]:
        Image.open(path).convert("L").save(path)


def printed(root: Path) -> None:
    Image.open(root / GRAY).convert("CMYK").save((root / GRAY).with_suffix(".jpg"))
    (root / GRAY).unlink()


def turn(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / GRAY).save(root / GRAY, exif=exif)


def one_left(root: Path) -> None:
    for i in range(1, 10):
        (root / f"cable/train/good/{i:03}.png").unlink()


def no_defects(root: Path) -> None:
    shutil.rmtree(root / "cable/test/hole")
    shutil.rmtree(root / "cable/ground_truth")


@pytest.mark.parametrize(
    ("plant", "level", "kind", "where", "words"),
    [
        (lambda r: (r / TRAIN).write_bytes(b"x"), "error", "unreadable image", TRAIN, "read"),
        (edit(MASK, lambda m: m.resize((16, 32))), "error", "mask size", MASK, "16 x 32"),
        (edit(MASK, lambda m: Image.new("L", m.size)), "error", "empty mask", MASK, "no pixel"),
        (lambda r: (r / MASK).write_bytes(b"x"), "error", "unreadable mask", MASK, "read"),
        (copy(MASK, MASK.replace("000", "7")), "error", "stray mask", MASK.replace("000", "7"), ""),
        (lambda r: (r / MASK).unlink(), "error", "no mask", "cable/test/hole/000.png", "others"),
        (lambda r: shutil.rmtree(r / "cable/ground_truth"), "note", "no masks", "cable", "pixel"),
        (bend, "warning", "no masks", "cable/bend", "None of the 4"),
        (copy(TRAIN, COPY), "error", "train in test", COPY, TRAIN),
        (retouch, "warning", "near duplicate", COPY, TRAIN),
        (copy(TRAIN, TRAIN.replace("003", "copy")), "warning", "duplicate", None, TRAIN),
        (copy("bottle/test/hole/001.png", COPY), "error", "two labels", None, COPY),
        (edit(GRAY, lambda i: i.convert("L")), "note", "grayscale", "cable", GRAY),
        (all_gray, "note", "grayscale", "cable", "17 of 17 images:"),
        (edit(GRAY, lambda i: i.convert("L").convert("I;16")), "note", "16-bit", "cable", GRAY),
        (edit(GRAY, lambda i: i.convert("RGBA")), "note", "alpha", "cable", "transparency"),
        (printed, "note", "CMYK", "cable", "RGB"),
        (turn, "note", "rotated by EXIF", "cable", "upright"),
        (edit(GRAY, lambda i: i.resize((40, 48))), "note", "unequal sizes", "cable", "40 x 48"),
        (one_left, "warning", "imbalance", "cable", "'bottle' has 10"),
        (one_left, "warning", "few photographs", "cable", "photographs: 1."),
        (no_defects, "note", "cannot be measured", "cable", "no defective test images"),
    ],
)
def test_a_planted_fault_is_named_with_its_place_and_fix(root, plant, level, kind, where, words):
    plant(root)
    found = faults_of(root)
    (fault,) = [f for f in found if f.kind == kind]
    assert fault.level == level
    assert where in (fault.where, None)
    assert words in fault.what
    assert bool(fault.fix) == (level != "note")
    consequences = {"cannot be measured", "no normal folder", "imbalance", "few photographs"}
    consequences |= {"white level"}
    assert {f.kind for f in found} - consequences <= {kind}


def test_a_stray_mask_is_offered_the_name_of_the_only_image_without_one(root):
    for number, name in enumerate(["'000_mask.png'", "name of its image"]):
        mask = root / f"cable/ground_truth/hole/{number:03}_mask.png"
        mask.rename(mask.with_name(f"{number + 7}_mask.png"))
        stray = [fault for fault in faults_of(root) if fault.kind == "stray mask"]
        assert [name in fault.fix for fault in stray] == [True] * (number + 1)


def test_a_listed_image_that_is_missing_and_counts_that_differ_are_shown(tmp_path, capsys):
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    (tmp_path / "VisA/candle/Data/Images/Anomaly/001.JPG").unlink()
    assert not check(str(tmp_path / "VisA"))
    out = capsys.readouterr().out
    assert "missing image (1)\n  candle/Data/Images/Anomaly/001.JPG: " in out
    assert "4 (of 900)" in out


def listed(**counts: tuple[int, int, int]) -> Index:
    parts = (("a", "good", "train"), ("b", "good", "test"), ("c", "bad", "test"))
    samples = [
        Sample(Path(f"{name}/{kind}/{i}.png"), (), name, defect, split)
        for name, numbers in counts.items()
        for (kind, defect, split), number in zip(parts, numbers, strict=True)
        for i in range(number)
    ]
    return Index("mvtec", "mvtec", samples)


def test_counts_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the paths of `listed` are relative to an empty folder
    published = {name: tuple(c) for name, c in PUBLISHED["mvtec"].categories.items()}
    assert [f for f in find(Path(), listed(**published), []) if f.level == "error"] == []
    published["bottle"] = (208, 20, 64)
    faults = [f for f in find(Path(), listed(**published), []) if f.level == "error"]
    assert [f.where for f in faults] == 2 * ["bottle"] + 2 * ["all categories"]
    numbers = (208, 64, 3628, 1259)
    assert all(f"are {n} " in f.what for n, f in zip(numbers, faults, strict=True))
    del published["bottle"]
    faults = [f for f in find(Path(), listed(**published, screws=(99, 9, 9)), []) if f.fix]
    assert [(f.kind, f.where) for f in faults] == [
        ("category missing", "bottle"),
        ("category unknown", "screws"),
    ]


def test_categories_with_fewer_than_ten_training_photographs_are_few():
    samples = listed(bolt=(9, 30, 0), nut=(10, 0, 0), gear=(0, 1, 0)).samples
    assert few_photographs(samples) == {"bolt": 9, "gear": 0}


def test_workers_find_the_same_facts(root):
    samples = index_dataset(root).samples
    alone, shared = (gather(samples, num_workers=n, progress=False) for n in (0, 1))
    assert [f.sample for f in shared] == samples
    assert [f.digest for f in shared] == [f.digest for f in alone]


def test_the_command_prints_a_table_and_fails_on_errors(root, capsys):
    main(["data", "check", f"--data.root={root}"])
    out = capsys.readouterr().out
    assert "data, mvtec layout, 2 categories, 20 training and 14 test images" in out
    assert "(0 errors, 0 warnings, 0 notes)" in out
    for path in sorted((root / "bottle/train/good").iterdir())[:7]:
        path.write_bytes(b"x")
    with pytest.raises(SystemExit, match="1"):
        main(["data", "check", f"--data.root={root}"])
    out = capsys.readouterr().out
    assert "error: unreadable image (7)" in out
    assert out.count("train/good/") >= 7  # broken files are all named
    assert "(7 errors, 0 warnings, 0 notes)" in out
    with pytest.raises(SystemExit, match="1"):
        main(["data", "check", f"--data.root={root}", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] is False
    assert record["categories"]["bottle"] == {"train": 10, "good": 4, "defective": 3}
    assert len(record["faults"]) == 7
    assert set(record["faults"][0]) == {"level", "kind", "where", "what", "fix", "files"}


def test_every_file_that_no_sample_uses_is_listed_with_the_reason(root, capsys):
    def put(*names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / TRAIN, root / name)

    reasons = {
        "folders within 'bottle/train/good'": ["bottle/train/good/lot7/x.png"],
        ".jfif is not read": ["bottle/train/good/x.jfif"],
        ".ppm is not read": ["bottle/train/good/x.ppm"],
        ".gif is not read": ["bottle/train/good/x.gif"],
        ".jp2 is not read": ["bottle/test/hole/x.JP2"],
        "looks like masks": ["cable/annotations/hole/000.png"],
        "not a category": ["spare/photos/000.png", "spare/photos/001.png"],
        "no images at this place": ["cable/train/odd/7.png", "cable/7.png"],
        "other masks": ["cable/ground_truth/hole/000.png"],
        "hidden": [".thumbs/x.png", "cable/test/good/._x.png", "__MACOSX/x.png"],
        "omiad wrote": ["predictions/overlays/a.png", "predictions/predictions.csv"],
        "no photographs": ["cable/labels.xml"],
    }
    put(*(name for names in reasons.values() for name in names))
    os.mkfifo(root / "cable/train/odd/pipe.png")
    reasons["pipes"] = ["cable/train/odd/pipe.png"]
    (root / "cable/loop").symlink_to(root)
    faults = faults_of(root)
    for reason, names in reasons.items():
        found = [f for f in faults if f.files and reason in f.what]
        assert sorted(name for f in found for name in f.files) == sorted(names), reason
        assert all(Path(name).name in " ".join(f.what for f in found) for name in names)
    listed = [name for f in faults for name in f.files]
    assert len(listed) == len(set(listed)) == sum(map(len, reasons.values()))
    assert {f.level for f in faults if f.kind == "unused photographs"} == {"warning"}
    assert check(str(root))
    assert "lot7" in capsys.readouterr().out


def test_the_names_of_many_unused_files_are_in_the_json(root, capsys):
    names = [f"bottle/train/good/{i:02}.gif" for i in range(30)]
    for name in names:
        shutil.copy(root / TRAIN, root / name)
    (fault,) = (f for f in faults_of(root) if f.kind == "unused photographs")
    assert "and 20 more" in fault.what
    check(str(root), json=True)
    record = json.loads(capsys.readouterr().out)
    assert sorted(record["faults"][0]["files"]) == names


@pytest.mark.parametrize(("most", "level"), [(200, 255), (1023, 1023), (4080, 4095), (9999, 16383)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_camera_of_fewer_bits_than_its_files_is_noticed(root, most, level, suffix):
    for path in root.glob("cable/*/good/*.png"):
        wide = np.linspace(0, most, 32 * 32).round().reshape(32, 32).astype(np.uint16)
        path.unlink()
        Image.fromarray(np.roll(wide, int(path.stem))).save(path.with_suffix(f".{suffix}"))
    (fault,) = (f for f in faults_of(root) if f.kind == "white level")
    assert (fault.level, fault.where) == ("warning", "cable")
    assert f"--data.white_level {level}" in fault.fix


def test_dark_16_bit_colour_cannot_be_mended_by_a_white_level(root):
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 32, 3), dtype=np.uint16)
    (root / GRAY).write_bytes(png_16_bit(pixels))
    (fault,) = (f for f in faults_of(root) if f.kind == "white level")
    assert "8 bits" in fault.fix


def test_16_bits_in_full_give_no_warning(root):
    wide = np.random.default_rng(0).integers(0, 65_536, (32, 32), dtype=np.uint16)
    Image.fromarray(wide).save(root / GRAY)
    assert "white level" not in {f.kind for f in faults_of(root)}


def jpeg(root: Path) -> None:
    Image.open(root / MASK).save((root / MASK).with_suffix(".jpg"), quality=75)
    (root / MASK).unlink()


@pytest.mark.parametrize(
    ("plant", "kind", "words"),
    [
        (jpeg, "JPEG mask", "levels"),
        (edit(MASK, lambda m: m.filter(ImageFilter.GaussianBlur(1.5))), "mask levels", "half"),
        (edit(MASK, lambda m: m.point(lambda x: x and 100 + 0 * x)), None, ""),
        (edit(MASK, ImageOps.invert), "large mask", "inverted"),
    ],
)
def test_doubtful_masks_are_named(root, plant, kind, words):
    plant(root)
    found = [f for f in faults_of(root) if "mask" in f.kind]
    assert [f.kind for f in found] == ([kind] if kind else [])
    for fault in found:
        assert (fault.level, Path(fault.where).stem) == ("warning", Path(MASK).stem)
        assert words in fault.what


def test_a_folder_that_cannot_be_opened_stops_the_check_with_its_path(root, monkeypatch):
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != root / "cable" and may(path, mode))
    with pytest.raises(InputError, match=r"cable' cannot be opened"):
        index_dataset(root)
    (root / "lost+found").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != root / "lost+found")
    assert len(index_dataset(root).samples) == 34


def test_a_folder_beside_the_images_that_cannot_be_opened_is_an_error(root, monkeypatch):
    locked, scan = root / "bottle/train/good/lot7", os.scandir
    locked.mkdir()

    def scandir(path: str) -> object:
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    (fault,) = (f for f in faults_of(root) if f.kind == "locked folder")
    assert (fault.level, fault.where) == ("error", "bottle/train/good/lot7")
