"""Names and split files from a download can neither lead out of a folder nor stop a run."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic import write_realiad, write_visa

from omiad.data.check import check
from omiad.data.layouts import index_dataset, mvtec
from omiad.data.layouts.visa import SPLIT
from omiad.errors import InputError
from omiad.metrics.table import figures_table

AUDIOJACK = "realiad_jsons/realiad_jsons/audiojack.json"
BAD_NAMES = ["../../x", "/abs/x", "", ".", "..", "a/b", "a\\b", " a", "x" * 256, "a\x1b[2J"]
BAD_PATHS = ["../secret.png", "/etc/passwd", "", ".", "a/../../x.png", "a\0.png"]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def visa_root(tmp_path: Path) -> Path:
    write_visa(tmp_path / "VisA", np.random.default_rng(0))
    return tmp_path / "VisA"


@pytest.fixture
def realiad_root(tmp_path: Path) -> Path:
    write_realiad(tmp_path / "Real-IAD", np.random.default_rng(0))
    return tmp_path / "Real-IAD"


def write_split(root: Path, *rows: tuple[str, ...]) -> None:
    (root / "split_csv").mkdir(parents=True)
    header = ("object", "split", "label", "image", "mask")
    (root / SPLIT).write_text("\n".join(map(",".join, (header, *rows))))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_category_of_visa_that_is_no_name_of_a_folder_is_refused(tmp_path, name):
    write_split(tmp_path, (name, "train", "normal", "a/0.png", ""))
    with pytest.raises(InputError, match="cannot be the name of a category"):
        index_dataset(tmp_path)
    with pytest.raises(InputError, match="cannot be the name of a category"):
        check(str(tmp_path))


@pytest.mark.parametrize("path", BAD_PATHS)
@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_of_visa_that_leads_out_of_the_root_is_refused(tmp_path, column, path):
    if column == "mask" and not path:
        pytest.skip("an empty cell means no mask")
    row = {"image": "a/1.png", "mask": "a/2.png", column: path}
    write_split(
        tmp_path,
        ("a", "train", "normal", "a/0.png", ""),
        ("a", "test", "anomaly", row["image"], row["mask"]),
    )
    with pytest.raises(InputError, match="is not that of a file inside of"):
        index_dataset(tmp_path)


def test_paths_are_checked_below_a_relative_root_too(visa_root, monkeypatch):
    monkeypatch.chdir(visa_root)
    assert len(index_dataset(Path()).samples) == 20
    monkeypatch.chdir(visa_root / "candle")
    assert len(index_dataset(Path("..")).samples) == 20
    text = (visa_root / SPLIT).read_text().replace("candle/Data", f"{visa_root}/candle/Data", 1)
    (visa_root / SPLIT).write_text(text)
    monkeypatch.chdir(visa_root)
    with pytest.raises(InputError, match="inside of"):
        index_dataset(Path())


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("key", ["category", "anomaly_class"])
def test_a_name_in_real_iad_that_is_no_name_of_a_folder_is_refused(realiad_root, key, name):
    split = json.loads((realiad_root / AUDIOJACK).read_text())
    row = next(row for row in split["test"] if row["anomaly_class"] != "OK")
    row[key] = name
    (realiad_root / AUDIOJACK).write_text(json.dumps(split))
    with pytest.raises(InputError, match="cannot be the name of a"):
        index_dataset(realiad_root)


@pytest.mark.parametrize("path", [*BAD_PATHS, "\ud800.png"])
@pytest.mark.parametrize("key", ["image_path", "mask_path", "prefix"])
def test_a_path_of_real_iad_that_leads_out_of_the_root_is_refused(realiad_root, key, path):
    split = json.loads((realiad_root / AUDIOJACK).read_text())
    row = next(row for row in split["test"] if row["mask_path"])
    if key == "prefix":
        split["meta"]["prefix"] = f"../../{path}"
    elif path not in ("", "."):  # the folder of the category, which is inside
        row[key] = f"../../{path}" if path == "../secret.png" else path
    (realiad_root / AUDIOJACK).write_text(json.dumps(split))
    if key != "prefix" and path in ("", "."):
        index_dataset(realiad_root)
        return
    with pytest.raises(InputError, match=r"inside of|listed twice"):
        index_dataset(realiad_root)


def test_an_image_that_a_split_lists_twice_is_refused(tmp_path):
    row = ("a", "train", "normal", "a/0.png", "")
    write_split(tmp_path, row, row)
    with pytest.raises(InputError, match=r"'a/0.png' is listed twice"):
        index_dataset(tmp_path)


def test_a_category_that_a_split_does_not_train_on_is_named(tmp_path):
    write_split(
        tmp_path,
        ("a", "train", "normal", "a/0.png", ""),
        ("b", "test", "normal", "b/0.png", ""),
    )
    with pytest.raises(InputError, match=r"'b' .* no training images"):
        index_dataset(tmp_path)
    assert len(index_dataset(tmp_path, for_test=True).samples) == 2


@pytest.mark.parametrize("names", [("Bolt", "bolt"), ("caf\u00e9", "cafe\u0301"), ("SS", "\u00df")])
def test_names_that_some_file_systems_take_for_one_are_refused(tmp_path, names):
    touch(tmp_path, *(f"{name}/train/good/0.png" for name in names))
    with pytest.raises(InputError, match="differ only in case"):
        index_dataset(tmp_path)
    touch(tmp_path / "b", "nut/train/good/0.png", *(f"nut/test/{name}/0.png" for name in names))
    with pytest.raises(InputError, match=r"defects .* differ only in case"):
        index_dataset(tmp_path / "b")


@pytest.mark.skipif(os.name == "nt", reason="file systems of Windows refuse such names")
@pytest.mark.parametrize("name", [b"\xff", b"a\x1b[2J", b"a\nb", b" a", b"x" * 255])
def test_a_folder_whose_name_cannot_be_kept_is_refused(tmp_path, name):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    touch(folder, "train/good/0.png")
    with pytest.raises(InputError, match="cannot be the name of a category") as error:
        index_dataset(tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="file systems of Windows refuse such names")
def test_image_files_may_have_any_name(tmp_path):
    names = [b"\xff.png", b"a\x1b.png", b"a\nb.png", b"=1+1.png", b"x" * 251 + b".png"]
    for folder in ("good", "bad"):
        for name in names:
            touch(tmp_path / "nut" / folder, os.fsdecode(name))
    samples = index_dataset(tmp_path).samples
    assert len({sample.name(tmp_path) for sample in samples}) == 10


def test_tables_show_names_that_look_like_markup_and_escape_controls():
    console = Console(width=200)
    with console.capture() as capture:
        console.print(figures_table({"[new]": ["1"] * 8, "a\x1b[2J": ["2"] * 8}))
    assert "[new]" in capture.get()
    assert "\\x1b[2J" in capture.get()
    assert "\x1b[2J" not in capture.get()


def test_the_check_shows_names_of_files_escaped(tmp_path, capsys):
    touch(tmp_path, "[new]/good/0\x1b[2J.png", "[new]/good/1[bold].png")
    assert not check(str(tmp_path))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[new]/good/0\\x1b[2J.png" in out
    assert "[new]/good/1[bold].png" in out
    assert any(line.startswith("[new] ") for line in out.splitlines())


def test_links_that_lead_to_themselves_are_no_folders(tmp_path):
    touch(tmp_path, "nut/train/good/0.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nut/train/good/1.png").symlink_to("1.png")  # whose reader says so
    assert [s.image.name for s in index_dataset(tmp_path).samples] == ["0.png", "1.png"]


def test_linked_categories_keep_their_own_names(tmp_path):
    touch(tmp_path, "a/v1/0.png", "b/v1/0.png", "root/other/0.png")
    (tmp_path / "root/nut").symlink_to(tmp_path / "a/v1")
    (tmp_path / "root/bolt").symlink_to(tmp_path / "b/v1")
    categories = [s.category for s in index_dataset(tmp_path / "root").samples]
    assert categories == ["bolt", "nut", "other"]


# Split files.

NESTED = b"[" * 100_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no column object"),
        (b"object,split\n", "no column label"),
        (b"object,split,label,image,mask\na,train\n", r"not 5 cells in line 2"),
        (b"object,split,label,image,mask\na,train,normal,x.png,,more\n", r"not 5 cells in line 2"),
        (b"object,split,label,image,mask\na,train,normal,\xff.png,\n", r"Line 2 .*not UTF-8"),
        (b'object,split,label,image,mask\na,train,normal,"x,\n', "no CSV in line 2"),
        (
            b"object,split,label,image,mask\na,train,normal," + b"x" * 200_000 + b",\n",
            "no CSV in line 2",
        ),
        (b"object,split,label,image,mask\na,dev,normal,x,\n", r"line 2 .*'dev'"),
        (b"\xff\xfeo\0b\0", r"Line 1 .*not UTF-8"),
    ],
)
def test_a_split_of_visa_that_is_no_table_gives_one_sentence(tmp_path, content, words):
    (tmp_path / "split_csv").mkdir()
    (tmp_path / SPLIT).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        index_dataset(tmp_path)
    assert str(tmp_path / SPLIT) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"5", b'"x"', NESTED, b'{"meta":' + NESTED, b"\xff\xfe", b"9" * 5000]
    + [b'{"meta": 1, "train": [], "test": []}', b'{"meta": {}, "train": [], "test": []}']
    + [b'{"meta": {"prefix": "a", "normal_class": "OK"}, "train": %s, "test": []}' % part
       for part in (b"1", b"{}", b"[1]", b"[[]]", b"[{}]", b'[{"category": 1}]', b"null")],
)  # fmt: skip
def test_a_split_of_real_iad_of_another_shape_gives_one_sentence(realiad_root, content):
    (realiad_root / AUDIOJACK).write_bytes(content)
    with pytest.raises(InputError, match=r"audiojack\.json") as error:
        index_dataset(realiad_root)
    assert len(str(error.value)) < 500


def test_a_split_that_is_too_large_is_not_read(visa_root, monkeypatch):
    monkeypatch.setattr("omiad.data.layouts.splits.LARGEST", 100)
    with pytest.raises(InputError, match=r"1cls\.csv' has .* too many"):
        index_dataset(visa_root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_split_that_is_a_pipe_is_not_waited_for(realiad_root):
    (realiad_root / AUDIOJACK).unlink()
    os.mkfifo(realiad_root / AUDIOJACK)
    with pytest.raises(InputError, match=r"audiojack\.json' is a folder, a pipe"):
        index_dataset(realiad_root)


def mutated(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        start = rng.randrange(len(changed))
        end = min(len(changed), start + rng.choice((0, 1, 4, 40)))
        changed[start:end] = rng.choice(
            (b"", rng.randbytes(2), b'"', b",", b"{", b"null", b"..", b"/", b"\0", b"-1", b"\n")
        )
    return bytes(changed)


@pytest.mark.parametrize("number", [150, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("write", [write_visa, write_realiad])
def test_mutated_splits_give_samples_of_the_root_or_one_sentence(
    tmp_path: Path, write: Callable[..., None], number: int
) -> None:
    root = tmp_path / "data"
    write(root, np.random.default_rng(0))
    path = root / (SPLIT if write is write_visa else AUDIOJACK)
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(number):
        path.write_bytes(mutated(whole, rng))
        try:
            samples = index_dataset(root).samples
        except InputError as error:
            refused += 1
            assert str(error).isprintable()  # noqa: PT017
            continue
        for sample in samples:
            assert ".." not in sample.name(root).split("/")
            assert sample.category not in ("", ".", "..")
            assert "/" not in sample.category + sample.defect
    assert 0 < refused < number


def test_the_layout_of_mvtec_alone_lists_what_the_index_admits(mvtec_root):
    assert index_dataset(mvtec_root).samples == mvtec.index(mvtec_root)
