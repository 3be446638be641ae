"""`omiad predict` with hostile photographs, at any moment of death, and beside itself."""

import copy
import csv
import errno
import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from omiad.cli import main
from omiad.detector import Detector
from omiad.errors import InputError, MissingInputError
from omiad.files import only_writer
from omiad.prediction.journal import JOURNAL, Journal
from omiad.prediction.outputs import _row
from omiad.prediction.photographs import find_photographs
from omiad.prediction.scorer import Scorer


@pytest.fixture(scope="module")
def checkpoint(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return tiny.saved(tiny.fit(tiny.amdm(), tiny.data_of(mvtec_root, folder), folder, 1))


@pytest.fixture(autouse=True)
def loaded_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build the network once for all tests; only what happens to the photographs is tested."""
    detector = _load(checkpoint)
    monkeypatch.setattr(Detector, "load", lambda path, device, trust: detector)


_load = functools.cache(Detector.load)


def photograph(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")
    return path


def photographs(folder: Path, count: int) -> Path:
    for i in range(count):
        photograph(folder / f"{i:03}.png", i)
    return folder


def predict(checkpoint: Path, images: Path, output: Path, *options: str) -> list[dict[str, str]]:
    """Run the command and read its table, the first column of which is the file's name."""
    main(
        ["predict", str(checkpoint), str(images), f"--output={output}", "--batch_size=4", *options]
    )
    return table(output)


def table(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence of a command that ended with status 2."""
    return " ".join(capsys.readouterr().err.split())


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Names


@pytest.mark.parametrize(
    "names",
    [
        ["a.jpg", "a.png", "a.png.png", "a.JPG", "a.tif.png"],
        ["a.png", "a.png.png/b.png", "a.png.png/a.png", "a/b.png"],
        ["\x1b[31m.png", "\x1b[32m.png", "line\nbreak.png", "_[31m.png"],
        ["x" * 251 + ".png", "x" * 250 + "y.png", "é" * 125 + ".png"],
        [os.fsdecode(b"\xff\xfe.png"), os.fsdecode(b"\xff\xfd.png"), "CON.png", "a:b|c?.png"],
    ],
)
def test_no_two_photographs_share_an_overlay(
    checkpoint: Path, tmp_path: Path, names: list[str]
) -> None:
    for i, name in enumerate(names):
        photograph(tmp_path / "photos" / name, i)
    rows = predict(checkpoint, tmp_path / "photos", tmp_path / "out")
    assert {row["image"] for row in rows} == {str(tmp_path / "photos" / name) for name in names}
    drawn = [row["overlay"] for row in rows]
    assert len({name.lower() for name in drawn}) == len(names)
    for name in drawn:
        assert (tmp_path / "out" / name).resolve().is_relative_to(tmp_path / "out")
        with Image.open(tmp_path / "out" / name) as overlay:
            overlay.load()


def test_a_name_is_no_formula_in_the_table(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("=1+1.png", "@x.png", "+1.png"):
        photograph(tmp_path / name)
    (tmp_path / "-1.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        predict(checkpoint, Path(), Path("out"))
    for row in table(Path("out")):
        assert row["image"].startswith(("'=", "'@", "'+", "'-"))
        assert not row["error"].startswith(tuple("=+-@"))


# Which photographs


def found(folder: Path) -> list[str]:
    return [each.name for each in find_photographs([str(folder)])]


def test_links_are_followed_and_each_file_is_found_once(tmp_path: Path) -> None:
    photograph(tmp_path / "store/deep/far.png")
    root = tmp_path / "photos"
    photograph(root / "near/a.png")
    (root / "all").symlink_to(tmp_path / "store")
    (root / "again").symlink_to(tmp_path / "store/deep")
    (root / "near/loop").symlink_to(root)
    (root / "0_same.png").symlink_to(root / "near/a.png")
    (root / "near/self").symlink_to(root / "near/self")
    assert sorted(found(root)) in (
        ["again/far.png", "near/a.png"],
        ["all/deep/far.png", "near/a.png"],
    )


def test_hidden_files_and_our_own_pictures_are_left_out(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = photographs(tmp_path / "photos", 2)
    photograph(root / ".thumbs/x.png")
    photograph(root / "._x.png")
    photograph(root / "run/panels/bolt.png")
    (root / "run/results.json").write_text("{}")
    photograph(root / "site/pictures/mine.png")
    (root / "site/index.html").write_text("<p>a page of somebody else</p>")
    (root / "notes.txt").write_text("no photograph")
    expected = ["000.png", "001.png", "site/pictures/mine.png"]
    assert found(root) == expected
    predict(checkpoint, root, root / "predictions")
    shutil.copytree(root / "predictions", root / "moved")
    assert found(root) == expected


def test_what_cannot_be_read_has_a_row(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = photographs(tmp_path / "photos", 2)
    os.mkfifo(root / "pipe.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "broken.png").write_bytes(b"no image")
    (root / "locked").mkdir()
    scandir = os.scandir

    def locked(path):  # type: ignore[no-untyped-def]
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, root, tmp_path / "out")
    sentence = refused(capsys)
    assert "5 of 7" in sentence
    rows = {Path(row["image"]).name: row for row in table(tmp_path / "out")}
    for name in ("pipe.png", "gone.png", "loop.png", "broken.png", "locked"):
        assert name in sentence
        assert name in rows[name]["error"]
        assert (rows[name]["score"], rows[name]["overlay"]) == ("", "")
    assert float(rows["000.png"]["score"]) > 0
    assert not rows["000.png"]["error"]


def test_ten_unreadable_photographs_are_named_and_all_are_counted(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(13):
        path = tmp_path / "photos" / f"bad_{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, tmp_path / "photos", tmp_path / "out")
    sentence = refused(capsys)
    assert "13 of 13" in sentence
    assert "bad_09.png and 3 more" in sentence
    assert sum(bool(row["error"]) for row in table(tmp_path / "out")) == 13


def test_several_paths_are_taken_in_their_order_and_a_missing_one_has_a_fault(
    tmp_path: Path,
) -> None:
    first, second = photograph(tmp_path / "b.png"), photographs(tmp_path / "a", 2)
    given = [str(first), str(tmp_path / "gone.png"), str(second), str(second / "000.png")]
    listed = find_photographs(given)
    assert [each.name for each in listed] == ["b.png", "gone.png", "000.png", "001.png"]
    assert "gone.png" in listed[1].fault
    with pytest.raises(MissingInputError, match=r"gone\.png"):
        find_photographs(given[1:2])


# Wrong arguments


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--batch_size=0", "--batch_size"),
        ("--batch_size=-1", "--batch_size"),
        ("--num_workers=-1", "--num_workers"),
        ("--category=bolt", "omiad calibrate"),
        ("--false_alarms=0.1", "omiad calibrate"),
        ("--max_megabytes=-1", "--max_megabytes"),
        ("--max_megabytes=nan", "max_megabytes"),
        ("--device=foo", "'foo'"),
    ],
)
def test_a_wrong_option_is_named_and_leaves_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, named: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, photographs(tmp_path / "photos", 1), tmp_path / "out", option)
    assert named in refused(capsys)
    assert not (tmp_path / "out").exists()


def test_a_score_that_is_no_number_names_image_and_checkpoint(
    checkpoint: Path, tmp_path: Path
) -> None:
    detector = copy.deepcopy(_load(checkpoint))
    assert detector.source == f"'{checkpoint}'"
    for parameter in detector.denoiser.parameters():
        parameter.data.fill_(float("nan"))
    root = photographs(tmp_path / "photos", 2)
    with pytest.raises(InputError, match=rf"000\.png.*{checkpoint}"):
        list(Scorer(detector, batch_size=2).results(find_photographs([str(root)])))


# Death and life


class _KilledError(BaseException):
    """Stands for SIGKILL: no handler of the command knows it."""


def killed_after(count: int, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    """Let the command die after so many photographs, once."""
    original = Journal.add

    def add(self, row):  # type: ignore[no-untyped-def]
        if self.num_rows == count:
            monkeypatch.setattr(Journal, "add", original)
            raise error
        original(self, row)

    monkeypatch.setattr(Journal, "add", add)


@pytest.mark.parametrize("deaths", [[0], [3], [4, 6], [9]])
def test_a_second_run_goes_on_to_the_same_bytes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: list[int]
) -> None:
    root = photographs(tmp_path / "photos", 10)
    (root / "002.png").write_bytes(b"no image")
    small = "--max_megabytes=0.01"  # holds a part of the photographs
    with pytest.raises(SystemExit):
        predict(checkpoint, root, tmp_path / "whole", small)
    for death in deaths:
        killed_after(death, monkeypatch, _KilledError)
        with pytest.raises(_KilledError):
            predict(checkpoint, root, tmp_path / "part", small)
        assert not (tmp_path / "part/predictions.csv").exists()
        with (tmp_path / "part" / JOURNAL).open("ab") as journal:
            journal.write(b'{"image":"cut of')
        (tmp_path / "part/overlays/.123.000.jpg.part").write_bytes(b"cut off")
    with pytest.raises(SystemExit):
        predict(checkpoint, root, tmp_path / "part", small)
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_ctrl_c_says_how_to_go_on(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = photographs(tmp_path / "photos", 6)
    killed_after(3, monkeypatch, KeyboardInterrupt)
    with pytest.raises(SystemExit, match="130"):
        predict(checkpoint, root, tmp_path / "out")
    printed = capsys.readouterr()
    assert "after 3 of 6 photographs" in " ".join((printed.out + printed.err).split())
    assert len(predict(checkpoint, root, tmp_path / "out")) == 6


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("photographs", "PHOTOS"),
        ("option", "--max_megabytes"),
        ("checkpoint", "MODEL"),
        ("journal", "MODEL"),
    ],
)
def test_another_command_does_not_go_on(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    named: str,
) -> None:
    root, out = photographs(tmp_path / "photos", 6), tmp_path / "out"
    killed_after(3, monkeypatch, KeyboardInterrupt)
    with pytest.raises(SystemExit, match="130"):
        predict(checkpoint, root, out)
    if change == "photographs":
        photograph(root / "000.png", 9)
    elif change == "checkpoint":
        content = torch.load(checkpoint, weights_only=True)
        checkpoint = tmp_path / "other.ckpt"
        torch.save({**content, "epoch": 7}, checkpoint)
    elif change == "journal":
        (out / JOURNAL).write_bytes(b"\xff[")
    before = files(out)
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, root, out, *(["--max_megabytes=3"] if change == "option" else []))
    assert named in refused(capsys)
    assert files(out) == before


def test_one_process_writes_to_a_folder(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = photographs(tmp_path / "photos", 1), tmp_path / "out"
    out.mkdir()
    with only_writer(out / ".predict.lock", owner=out), pytest.raises(SystemExit, match="2"):
        predict(checkpoint, root, out)
    assert f"'{out}'" in refused(capsys)
    assert not (out / "predictions.csv").exists()


def test_finished_predictions_are_never_replaced(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = photographs(tmp_path / "photos", 1), tmp_path / "out"
    predict(checkpoint, root, out)
    before = files(out)
    (out / JOURNAL).write_text("killed before its end")
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, root, out)
    assert "already holds predictions" in refused(capsys)
    assert files(out) == before


def test_a_full_disk_keeps_the_rows_before_it(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, out = photographs(tmp_path / "photos", 6), tmp_path / "out"
    predict(checkpoint, root, tmp_path / "whole")
    replace, calls = os.replace, itertools.count()

    def full(source: Path, target: Path) -> None:
        if next(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SystemExit, match="2"):
        predict(checkpoint, root, out)
    assert f"'{out}/overlays/000004_003.jpg'" in refused(capsys)
    assert (out / JOURNAL).read_bytes().count(b"\n") == 1 + 3
    predict(checkpoint, root, out)
    assert files(out) == files(tmp_path / "whole")


def test_a_full_disk_is_named_with_the_journal(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = Journal(path, {})
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(InputError, match=str(path)):
        journal.add(_row(find_photographs([str(photograph(tmp_path / "x.png"))])[0], "unreadable"))


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_what_a_second_run_completes(
    checkpoint: Path, tmp_path: Path
) -> None:
    root, out = photographs(tmp_path / "photos", 60), tmp_path / "out"
    whole = predict(checkpoint, root, tmp_path / "whole")
    given = [str(checkpoint), str(root), f"--output={out}", "--batch_size=4"]
    code = "from omiad.cli import main; main()"
    rng = np.random.default_rng(0)
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", code, "predict", *given]) as process:
            while process.poll() is None and not (out / JOURNAL).exists():
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
        if (out / "predictions.csv").exists():
            break
    else:
        predict(checkpoint, root, out)
    assert table(out)[-1]["score"] == whole[-1]["score"]
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.slow
def test_of_two_commands_that_start_together_one_is_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    root, out = photographs(tmp_path / "photos", 60), tmp_path / "out"
    given = [str(checkpoint), str(root), f"--output={out}"]
    command = [sys.executable, "-c", "from omiad.cli import main; main()", "predict", *given]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert sum(f"'{out}'" in error for error in errors) == 1
    assert len(table(out)) == 60
