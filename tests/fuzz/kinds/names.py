"""Names of categories, defects and files that lead out of a folder or into a terminal."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from world import EVALUATE, QUIET, World

from fuzz.cases import INPUT, OUTPUT, Case, command
from fuzz.checks import clean_page, finite_predictions, finite_results, formula
from fuzz.mutations import Rng, pick

MARKUP = "<img src=x onerror=alert(1)>"
NAMES = (
    *("..", ".", "", " ", "  x", "x ", "../x", "../../x", "../../../x", "{abs}/x", "a/b"),
    *("a/../../x", "a\\b", "..\\x", "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "=cmd|'/C calc'!A0"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "a\nb", "a\rb", "\x07", "\x00", "\x7f", "\x9b1m"),
    *("\u202egnp.x", "\u200b", "\u2028", "\ufeff", "\udcff", "\udc80x", "e\u0301", "é", "漢字"),
    *("[new]", "[bold]x", "[/bold]", "[/]", "[link=http://x]y[/link]", "[red", "🙂", "-rf"),
    *("good", "Good", "train", "test", "ground_truth", "masks", "predictions", "maps", "panels"),
    *("x" * 255, "x" * 201, "é" * 127, "x" * 300, "CON", "nul", "~", "~root", "$HOME", "--help"),
    *("`touch x`", "$(touch x)", "%s%n", "{0}", "{{ 7*7 }}", "{% raw %}", "'\"", "&amp;"),
    *(MARKUP, f"</script>{MARKUP}", "a,b", 'a"b', "a;b", ".hidden", "x.png", "a.b.c", "1e5"),
    *("nan", "None", "0", "2024-01-01", "mean", "categories"),
)
"""What a category, a defect or the stem of a file may be called by someone else."""


def names(world: World, rng: Rng, folder: Path) -> Case:
    """Rename categories, defects and files of a data set in one of the layouts, or photographs."""
    kind = pick(rng, (_folders, _folders, _visa, _visa, _realiad, _realiad, _photographs))
    return kind(world, rng, folder)


def name(rng: Rng, folder: Path) -> str:
    """Return a hostile name, or two in one."""
    text = pick(rng, NAMES)
    if rng.random() < 0.2:
        text += pick(rng, NAMES)
    return str(text).replace("{abs}", str(folder.parent / "absolute"))


def file_name(rng: Rng, folder: Path, suffix: str = "") -> bytes:
    """Return a hostile name that a file system takes."""
    text = name(rng, folder).replace("/", "_").replace("\x00", "") + suffix
    content = text.encode(errors="surrogateescape")[-255:]
    return content if content not in (b"", b".", b"..") else b"x"


def _renamed(path: Path, rng: Rng, folder: Path) -> Path:
    suffix = path.suffix if path.is_file() else ""
    target = os.path.join(os.fsencode(path.parent), file_name(rng, folder, suffix))
    with suppress(OSError):  # a name that exists already
        os.rename(path, target)
        return Path(os.fsdecode(target))
    return path


def _folders(world: World, rng: Rng, folder: Path) -> Case:
    """Rename folders and files of an MVTec or a flat tree, photographs with their masks."""
    root = folder / INPUT / "data"
    shutil.copytree(world.data, root)
    category = root / "bottle"
    if rng.random() < 0.3:  # the layout of one's own photographs
        (category / "train/good").rename(category / "good")
        (category / "test/hole").rename(category / "hole")
        shutil.rmtree(category / "train")
        shutil.rmtree(category / "test")
        shutil.rmtree(category / "ground_truth")
        shutil.rmtree(root / "cable")
        defect, files = category / "hole", [*category.rglob("*.png")]
    else:
        defect, files = category / "test/hole", [*category.rglob("*.png")]
    for _ in range(int(rng.integers(0, 3))):
        path = pick(rng, sorted(files))
        if path.exists():
            _renamed(path, rng, folder)
    if rng.random() < 0.4:
        renamed = _renamed(defect, rng, folder)
        truth = category / "ground_truth/hole"
        if truth.exists():
            with suppress(OSError):
                truth.rename(truth.with_name(renamed.name))
    if rng.random() < 0.5:
        _renamed(category, rng, folder)
    return _of_data_set(world, rng, folder, root)


def _visa(world: World, rng: Rng, folder: Path) -> Case:
    """Change the names in the split file of VisA."""
    root = folder / INPUT / "visa"
    _linked(world.home / "visa", root, but="split_csv")
    with (world.home / "visa/split_csv/1cls.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    _hostile(rows, (0, 0, 0, 3, 4, 1, 2), rng, folder)
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file).writerows([header, *rows])
    return _of_data_set(world, rng, folder, root)


def _realiad(world: World, rng: Rng, folder: Path) -> Case:
    """Change the names in a split of Real-IAD."""
    root, jsons = folder / INPUT / "realiad", "realiad_jsons"
    _linked(world.home / "realiad", root, but=jsons)
    (root / jsons).mkdir()
    for path in sorted((world.home / "realiad").rglob("*.json")):
        split = json.loads(path.read_text())
        rows = [*split["train"], *split["test"]]
        if rng.random() < 0.7:
            keys = ("category", "category", "category", "anomaly_class", "image_path", "mask_path")
            _hostile(rows, keys, rng, folder)
        else:
            split["meta"][pick(rng, ("prefix", "normal_class"))] = name(rng, folder)
        (root / jsons / path.name).write_text(json.dumps(split))
    return _of_data_set(world, rng, folder, root)


def _photographs(world: World, rng: Rng, folder: Path) -> Case:
    """Rename photographs to be scored, some of them in folders, some with equal stems."""
    inside = folder / INPUT / "photographs"
    shutil.copytree(world.photographs, inside)
    for path in sorted(inside.iterdir()):
        way = rng.random()
        if way < 0.3:
            _renamed(path, rng, folder)
        elif way < 0.45:
            held = inside / os.fsdecode(file_name(rng, folder))
            with suppress(OSError):
                held.mkdir(exist_ok=True)
                path.rename(held / path.name)
        elif way < 0.7:
            stem = pick(rng, ("twin", "twin.png", "twin.jpg"))
            with suppress(OSError):
                path.rename(path.with_name(stem + pick(rng, (".png", ".jpg", ".bmp", ".PNG"))))
    count = sum(path.is_file() and not _is_hidden(path, inside) for path in inside.rglob("*"))
    out = folder / OUTPUT / "p"

    def check() -> str | None:
        page = clean_page(out / "index.html", raw=MARKUP, plain=world.page)
        return finite_predictions(out, count) or page

    words = f"predict {world.student} {INPUT}/photographs --device cpu"
    return Case(command(f"{words} --output {OUTPUT}/p"), check=check, checks_refusals=True)


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _hostile(rows: Sequence[Any], keys: Sequence[Any], rng: Rng, folder: Path) -> None:
    """Give one row, or all rows that share its name, a hostile name under a key."""
    for _ in range(int(rng.integers(1, 3))):
        key, new = pick(rng, keys), name(rng, folder)
        row = pick(rng, rows)
        old = row[key]
        if key in (3, 4, "image_path", "mask_path"):
            if old and rng.random() < 0.5:  # a way out and back to a file that exists
                new = pick(rng, ("../visa/", "./", "{abs}/", "a/../")) + old
            new = new.replace("{abs}", str(folder))
        for each in rows if rng.random() < 0.7 else [row]:
            if each[key] == old:
                each[key] = new


def _linked(source: Path, target: Path, *, but: str) -> None:
    """Make a folder of links to the entries of another one, except for one of them."""
    target.mkdir()
    for path in source.iterdir():
        if path.name != but:
            (target / path.name).symlink_to(path)


def _of_data_set(world: World, rng: Rng, folder: Path, root: Path) -> Case:
    """Return a case of one of the commands that list a data set."""
    doors: tuple[Callable[..., Case], ...] = (_check, _check, _check, _evaluate, _hold_out, _test)
    return pick(rng, doors)(world, rng, folder, f"{INPUT}/{root.name}")


def _check(world: World, rng: Rng, folder: Path, root: str) -> Case:
    json_too = pick(rng, ("", "--json"))
    return Case(command(f"data check --data.root {root} {json_too}"), statuses=(0, 1, 2))


def _hold_out(world: World, rng: Rng, folder: Path, root: str) -> Case:
    words = f"data holdout {root} {OUTPUT}/held --num_defective 3"
    return Case(command(words))


def _evaluate(world: World, rng: Rng, folder: Path, root: str) -> Case:
    maps = folder / INPUT / "maps"
    for path in sorted((folder / root).rglob("*")):
        below = path.relative_to(folder / root)
        is_image = path.suffix.lower() in (".png", ".jpg") and "test" in below.parts
        if path.is_file() and is_image and "ground_truth" not in below.parts:
            target = maps / below.with_suffix(".npy")
            target.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.normal(size=(32, 32)).astype(np.float32)
            with suppress(OSError):
                np.save(target, noise)
    maps.mkdir(exist_ok=True)
    words = f"evaluate --maps {INPUT}/maps --data.root {root} {EVALUATE}"
    return Case(
        command(f"{words} --output {OUTPUT}/results.json"),
        check=lambda: finite_results(folder / OUTPUT / "results.json"),
    )


def _test(world: World, rng: Rng, folder: Path, root: str) -> Case:
    words = f"test --ckpt_path {world.student} --run_dir {OUTPUT}/t {QUIET} --save_maps"
    return Case(
        command(f"{words} --data.cache_dir={OUTPUT}/cache --data.root={root}"),
        check=lambda: _run_folder(folder / OUTPUT / "t"),
    )


def _run_folder(run: Path) -> str | None:
    with (run / "scores.csv").open(newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    return finite_results(run / "results.json") or formula(rows)
