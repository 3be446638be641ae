"""Runs that somebody else wrote, or that were cut off: a sentence, and never a wrong figure."""

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from results_of_others import changed_run, evaluated, signed
from synthetic import write_mvtec

from omiad.arrays import read_array, read_groups
from omiad.cli import main
from omiad.errors import InputError
from omiad.evaluation.maps import find_maps, map_stems, read_map, write_maps
from omiad.protocols import ADER, DINOMALY, UNIAD, Protocol
from omiad.record import read_results
from omiad.results import gallery_path, images_path, read_images

SIDE = 16


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "parts"
    write_mvtec(folder, np.random.default_rng(0), categories=("[new]", "mean"), num_train=0)
    return folder


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = evaluated(root, tmp_path_factory.mktemp("peer") / "bank", quality=20, size=SIDE)
    lines = ("epoch,step,train/loss,train/other", "0,9,1.0,2", "0,19,0.5,3", "1,29,0.25,5")
    (folder / "metrics.csv").write_text("\n".join(lines))
    path = folder / "results.json"
    latency = {"ms_per_image": 3.5, "batch_size": 8, "num_batches": 3, "of": "all"}
    model = {"kind": "OmiAD", "num_steps": 1, "t_init": 500, "backbone": "b4", "image_size": SIDE}
    about = {"latency": latency, "model": model, "weights": {"model": "1", "teacher": "1"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | about))
    return folder


def status(*args: object) -> int:
    """Run a command; return its exit status. Anything but SystemExit is a failure of the test."""
    try:
        main([*map(str, args)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def all_uses(run: Path, other: Path, out: Path) -> Iterator[int]:
    """Yield the status of each command that reads a run."""
    yield status("report", other, run, f"--out={out}", "--max_megabytes=0.05")
    yield status("compare", other / "results.json", run / "results.json", "--num_resamples=9")
    yield status("compare", other / "results.json", run / "results.json", "--seeds")
    for table in (1, 4):
        yield status(
            "typeset", run / "results.json", f"--table={table}", f"--output={out}.{table}.md"
        )


def fuzz(
    kind: str, number: int, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read changed runs; whatever is accepted has figures, and whatever is refused a sentence."""
    for seed in range(number):
        folder = changed_run(run, tmp_path / str(seed), kind, seed)
        if kind == "csv":
            (folder / "results.json").unlink()
            found = [status("report", folder, f"--out={folder / 'page'}")]
        else:
            found = [*all_uses(folder, run, folder / "page")]
        said = capsys.readouterr()
        assert set(found) <= {0, 2}, seed
        assert not re.search(r"\b(nan|inf)\b", said.out), seed
        assert not any(char in said.out + said.err for char in "\x1b\udcff"), seed
        assert len(said.err.strip().splitlines()) <= len(found), (seed, said.err)
        page = folder / "page" / "index.html"
        if page.exists():
            assert not re.search(r"[>\s\":](nan|NaN|inf|Infinity)[<\s\",]", page.read_text()), seed
        shutil.rmtree(folder)


KINDS = ("json", "images", "gallery", "csv")


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_run_is_refused_or_has_figures(
    kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz(kind, 8, run, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_changed_runs_are_refused_or_have_figures(
    kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz(kind, 1000, run, tmp_path, capsys)


def member(path: Path, name: str, content: bytes, *, copies: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for _ in range(copies):
            archive.writestr(name, content)
    return path


def header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_a_small_file_that_unpacks_to_more_than_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = member(tmp_path / "bomb.npz", "c/a.npy", header("(900, 900)") + bytes(4 * 900**2))
    assert bomb.stat().st_size < 2**14
    with pytest.raises(InputError, match=r"bomb\.npz.*\(900, 900\)"):
        read_array(bomb, mend="", largest=2**20)
    monkeypatch.setattr("omiad.arrays.LARGEST", 2**20)
    with pytest.raises(InputError, match=r"bomb\.npz.*unpacks to"):
        list(read_groups(bomb, {}, mend=""))
    for shape in ("(10**9, 10**9)", "(1000000000, 1000000000)", "(-1, 4)", "(" * 50 + ")" * 50):
        (tmp_path / "map.npy").write_bytes(header(shape))
        with pytest.raises(InputError, match=r"map\.npy"):
            read_map(tmp_path / "map.npy")


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "made"),))

    evil = np.array([Evil()], dtype=object)
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "b.npz", evil, allow_pickle=True)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(InputError, match=name):
            read_array(tmp_path / name, mend="")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["../x/a.npy", "/a.npy", "x/y/a.npy", "x/a", "\x1b/a.npy"])
def test_a_member_with_an_impossible_name_is_refused(name: str, tmp_path: Path) -> None:
    path = member(tmp_path / "x.npz", name, header("(0,)"))
    with pytest.raises(InputError, match=r"x\.npz") as error:
        list(read_groups(path, {}, mend=""))
    assert "\x1b" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = member(tmp_path / "x.npz", "c/a.npy", header("(0,)"), copies=2)
    with pytest.raises(InputError, match="repeated"):
        list(read_groups(path, {}, mend=""))


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "1" * 500, "-0.25", "1.5", "true"])
def test_a_figure_that_is_no_fraction_is_refused(text: str, run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "results.json").read_text())
    record["mean"]["aupro"] = "HERE"
    path = tmp_path / "results.json"
    path.write_text(json.dumps(record).replace('"HERE"', text))
    with pytest.raises(InputError, match=r"results\.json"):
        read_results(path)


def test_a_sum_of_fractions_may_be_rounded_above_1(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "results.json").read_text())
    record["mean"]["image_auroc"] = 1 + 2**-52
    path = tmp_path / "results.json"
    path.write_text(json.dumps(record))
    assert read_results(path)["mean"]["image_auroc"] > 1


def test_a_score_that_is_not_finite_is_refused(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / "results.json"
    with np.load(images_path(path)) as archive:
        arrays = dict(archive)
    arrays["mean/score"][1] = np.nan
    np.savez(images_path(path), **arrays)
    with pytest.raises(InputError, match="different tests, or one of them is damaged"):
        list(read_images(path, read_results(path)))
    signed(path, images_path(path))
    with pytest.raises(InputError, match="'mean' has NaN"):
        list(read_images(path, read_results(path)))


@pytest.mark.parametrize("how", ["parent", "absolute", "link"])
def test_a_report_shows_no_file_that_the_test_has_not_seen(
    how: str, run: Path, root: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path, secret = folder / "results.json", tmp_path / "secret.png"
    Image.new("RGB", (SIDE, SIDE), (255, 0, 0)).save(secret)
    record, gallery = json.loads(path.read_text()), gallery_path(path)
    with np.load(gallery) as archive:
        arrays = dict(archive)
    old = arrays["mean/name"][0]
    new = {"parent": f"../{secret.name}", "absolute": str(secret)}.get(how, "secret.png")
    for column in ("name", "reference"):
        arrays[f"mean/{column}"] = np.array(
            [new if n == old else n for n in arrays[f"mean/{column}"]]
        )
    np.savez(gallery, **arrays)
    with np.load(images_path(path)) as archive:
        arrays = dict(archive)
    arrays["mean/name"] = np.array([new if n == old else n for n in arrays["mean/name"]])
    np.savez(images_path(path), **arrays)
    record["root"] = str(tmp_path)
    if how == "link":
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "secret.png").symlink_to(secret)
        record["root"] = str(tmp_path / "linked")
    path.write_text(json.dumps(record))
    signed(path, gallery)
    signed(path, images_path(path))
    out = tmp_path / "page"
    if status("report", folder, f"--out={out}") == 0:
        page = (out / "index.html").read_text()
        data = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])
        assert not any(image["photo"] for image in data["images"] if image["category"] == "mean")


def test_photographs_that_changed_since_the_test_are_not_shown(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_mvtec(root, np.random.default_rng(0), categories=("nut",), num_train=0)
    folder = evaluated(root, tmp_path / "run")
    Image.new("RGB", (32, 32)).save(root / "nut/test/good/000.png")
    assert status("report", folder, f"--out={tmp_path / 'page'}") == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "1 of 6 photographs were not found below" in page


def test_files_of_two_tests_are_no_test(run: Path, root: Path, tmp_path: Path) -> None:
    other = evaluated(root, tmp_path / "other", "--blur_sigma=1", size=SIDE)
    for name in ("results.images.npz", "results.gallery.npz"):
        mixed = shutil.copytree(run, tmp_path / name)
        shutil.copy(other / name, mixed)
        assert status("report", mixed, f"--out={tmp_path / 'page'}") == 2
    assert not (tmp_path / "page").exists()


def test_images_of_a_category_without_figures_are_refused(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    path, record = folder / "results.json", json.loads((folder / "results.json").read_text())
    for part in (record, record["further"], record["intervals"]):
        del part["categories"]["mean"]
    for part in (record["bounds"], record["notes"], record["vanished"]):
        part.pop("mean", None)
    path.write_text(json.dumps(record))
    for options in (
        ("compare", path, path, "--num_resamples=9"),
        ("report", folder, f"--out={tmp_path / 'page'}"),
    ):
        assert status(*options) == 2


def test_categories_named_mean_or_like_markup_have_rows_of_their_own(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    record = read_results(run / "results.json")
    assert set(record["categories"]) == set(record["intervals"]["categories"]) == {"[new]", "mean"}
    assert record["mean"]["mad"] != record["categories"]["mean"]["mad"]
    assert [each for each, _ in read_images(run / "results.json", record)] == ["[new]", "mean"]
    capsys.readouterr()
    status("compare", run / "results.json", run / "results.json", "--seeds")
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines() if " 100.0 " in line]
    assert rows == ["[new]", "mean", "mean"]
    table = tmp_path / "table.csv"
    status("typeset", run, "--table=4", f"--output={table}")
    assert [line.split(",")[0] for line in table.read_text().splitlines()] == [
        "Category", "[new]", "mean", "Mean",
    ]  # fmt: skip


def test_two_processes_do_not_write_to_one_output(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from omiad.files import only_writer  # noqa: PLC0415

    for name, options in {
        "table.md": ("typeset", run, "--table=4", f"--output={tmp_path / 'table.md'}"),
        "page": ("report", run, f"--out={tmp_path / 'page'}"),
    }.items():
        lock = tmp_path / (".table.md.lock" if name == "table.md" else "page/.lock")
        lock.parent.mkdir(exist_ok=True)
        with only_writer(lock, owner=tmp_path):
            assert status(*options) == 2
        assert "Another process is writing" in capsys.readouterr().err
        assert not (tmp_path / name).is_file()
        assert status(*options) == 0
        assert not lock.exists()


@pytest.mark.parametrize("broken", ["write_whole", "write_groups"])
def test_a_test_that_is_cut_off_leaves_no_results(
    broken: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"omiad.results.{broken}", cut_off)
    with pytest.raises(SystemExit):
        evaluated(root, tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert "results.json" not in left
    assert not any(name.endswith((".part", ".lock")) for name in left)


def test_images_that_differ_in_their_suffix_have_maps_of_their_own(tmp_path: Path) -> None:
    names = ["a/0.png", "a/0.jpg", "a/0.png.png", "a/0.png.png.png", "a/1.png"]
    stems = map_stems(names)
    assert stems == [*names[:4], "a/1"]
    write_maps(tmp_path, [f"{stem}.npy" for stem in stems], torch.arange(5.0).view(5, 1, 1))
    assert [read_map(path).item() for path in find_maps(tmp_path, names)] == [0, 1, 2, 3, 4]


def vanished(protocol: Protocol, mask: np.ndarray) -> tuple[int, int, int]:
    """Return the numbers of defective pixels, unknown pixels and vanished regions."""
    labels, number = protocol.label_mask(mask)
    return int((labels == 1).sum()), int((labels == 2).sum()), number


def test_a_defect_that_vanishes_is_unknown_and_not_normal() -> None:
    small = Protocol("uniad", 96, 96, "", mask_resize="nearest")
    mask = np.zeros((960, 960), bool)
    mask[477:480, 477:480] = True  # between the sampled pixels 475 and 485
    assert vanished(small, mask) == (0, 1, 1)
    mask[100:140, 100:140] = True  # a second region stays
    assert vanished(small, mask) == (16, 1, 1)
    mask[478:482, 700:701] = True
    assert vanished(small, mask) == (16, 3, 2)  # it lies in two pixels
    assert vanished(ADER, np.pad(np.ones((2, 2), bool), 1500))[1:] == (4, 1)
    assert vanished(UNIAD, np.zeros((960, 960), bool)) == (0, 0, 0)
    corner = np.zeros((448, 448), bool)
    corner[2:9, 2:9] = True
    assert vanished(DINOMALY, corner) == (0, 0, 1)  # the crop leaves nothing to ignore


@pytest.mark.parametrize("estimator", ["exact", "source"])
def test_a_perfect_method_is_perfect_although_a_defect_vanishes(
    estimator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, maps, side = tmp_path / "data", tmp_path / "maps", 24
    write_mvtec(root, np.random.default_rng(0), categories=("nut",), num_train=0, size=240)
    for number, spot in enumerate((slice(101, 104), slice(60, 90), slice(0, 30))):
        mask = np.zeros((240, 240), np.uint8)
        mask[spot, spot] = 255
        Image.fromarray(mask).save(root / f"nut/ground_truth/hole/{number:03}_mask.png")
        found = np.asarray(Image.fromarray(mask).resize((side, side), Image.Resampling.BOX)) > 0
        (maps / "nut/test/hole").mkdir(parents=True, exist_ok=True)
        np.save(maps / f"nut/test/hole/{number:03}.npy", found.astype(np.float32))
    (maps / "nut/test/good").mkdir()
    for number in range(3):
        np.save(maps / f"nut/test/good/{number:03}.npy", np.zeros((side, side), np.float32))
    given = [f"--maps={maps}", f"--data.root={root}", f"--image_size={side}", "--pool_size=1"]
    path = tmp_path / "results.json"
    main(["evaluate", *given, f"--output={path}", f"--estimator={estimator}", "--num_resamples=9"])
    record, printed = read_results(path), " ".join(capsys.readouterr().out.split())
    assert record["vanished"] == {"nut": {"regions": 1, "masks": 1}}
    assert "that vanish at the size of the maps: 1 (whole masks: 1)" in printed
    is_perfect = record["categories"]["nut"]["pixel_auroc"] == 1
    assert is_perfect == (estimator == "exact")
    [(_, images)] = read_images(path, record)
    regions = images.counts[:, 2].sum()
    assert regions == pytest.approx(2)
    pixels = images.counts[:, :2].sum((1, 2)).tolist()
    unknown = 0 if estimator == "source" else 1
    assert sorted(side**2 - count for count in pixels) == [0, 0, 0, 0, 0, unknown]


def test_a_map_that_is_not_finite_is_named(root: Path, tmp_path: Path) -> None:
    for image in root.glob("*/test/*/*.png"):
        path = tmp_path / "maps" / image.relative_to(root).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((SIDE, SIDE), 3e38, np.float32))
    command = ["evaluate", f"--maps={tmp_path / 'maps'}", f"--data.root={root}", "--blur_sigma=0"]
    with pytest.raises(SystemExit):
        main([*command, f"--image_size={SIDE}", f"--output={tmp_path / 'r.json'}"])
    assert not (tmp_path / "r.json").exists()
