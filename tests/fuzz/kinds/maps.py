"""Other methods' anomaly maps and score tables, for `omiad evaluate`."""

import csv
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from world import EVALUATE, World

from fuzz.cases import CANARY, INPUT, OUTPUT, Case, command
from fuzz.checks import finite_results
from fuzz.kinds.images import SPECIALS, encoded
from fuzz.kinds.results import changed
from fuzz.mutations import Rng, damaged, pick

HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 1000)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 32)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (32, 32)}" + " " * 20_000,
    "__import__('os').system('touch canary')",
    "{'descr': '<f4'",
    "[" * 500,
)


def maps(world: World, rng: Rng, folder: Path) -> Case:
    """Change one to three maps: arrays, bytes, headers, pictures, pickles, names."""
    source, target = world.tested / "maps", folder / INPUT / "maps"
    shutil.copytree(source, target)
    files = sorted(target.rglob("*.npy"))
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        path = pick(rng, files)
        if path.is_file():
            _attack(path, np.load(source / path.relative_to(target)), rng, folder)
    return _evaluate(world, folder, rng)


def scores(world: World, rng: Rng, folder: Path) -> Case:
    """Change the table of image scores: columns, cells, names, encodings, bytes."""
    with (world.tested / "scores.csv").open(newline="") as file:
        rows: list[Any] = list(csv.reader(file))
    cells = (
        "nan",
        "inf",
        "-1e400",
        "1e308",
        "",
        "=1+1",
        "0x10",
        "1,5",
        "\u0661",
        "x" * 200_000,
        "-0",
    )
    names = ("../../x", "\x1b[31mred", "/etc/passwd", "", ".", "a\nb", "[bold]", "bottle")
    for _ in range(int(rng.integers(0, 4))):
        row = int(rng.integers(len(rows)))
        way = int(rng.integers(7))
        if way == 0:
            del rows[row]
        elif way == 1:
            rows.insert(row, list(rows[row]))
        elif way == 2:
            rows[row] = rows[row][:1] if rng.random() < 0.5 else [*rows[row], "more"]
        elif way == 3 and rows[row]:
            rows[row][0] = pick(rng, names)
        elif way == 4 and len(rows[row]) > 1:
            rows[row][1] = pick(rng, cells)
        elif way == 5:
            rows[row] = list(reversed(rows[row]))
        else:
            rows[0] = pick(rng, (["image", "score", "score"], ["Image", "Score"], [], ["score"]))
        if not rows:
            break
    text = io.StringIO()
    csv.writer(text, delimiter=pick(rng, ",,,;\t"), quoting=pick(rng, (0, 1))).writerows(rows)
    content = text.getvalue().encode(pick(rng, ("utf-8", "utf-8-sig", "utf-16", "utf-8")))
    table = folder / INPUT / "scores.csv"
    table.write_bytes(damaged(content, rng) if rng.random() < 0.4 else content)
    if rng.random() < 0.03:
        table.unlink()
        pick(rng, (os.mkfifo, os.mkdir))(table)
    return _evaluate(world, folder, rng, table=table)


def _evaluate(world: World, folder: Path, rng: Rng, *, table: Path | None = None) -> Case:
    where = world.tested / "maps" if table else f"{INPUT}/maps"
    words = f"evaluate --maps {where} --data.root {world.data} {EVALUATE}"
    words += f" --scores {INPUT}/scores.csv" if table else ""
    words += pick(rng, ("", "", " --blur_sigma 2", " --estimator source"))
    return Case(
        command(f"{words} --output {OUTPUT}/results.json"),
        check=lambda: finite_results(folder / OUTPUT / "results.json"),
    )


def _attack(path: Path, array: Any, rng: Rng, folder: Path) -> None:
    way = int(rng.integers(8))
    if way == 0:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif way == 1:
        np.save(path, changed(array, rng, folder))
    elif way == 2:
        _write_header(path, pick(rng, HEADERS), array)
    elif way == 3:
        names = (["a"], ["a", "b"], ["../x"], [""], [], ["filename", "pred"])
        held = dict.fromkeys(pick(rng, names), array)
        if rng.random() < 0.2:
            held["filename"] = pick(rng, (np.array("../../x.png"), np.array("\x1b[31m"), array))
        path.unlink()
        np.savez(path.with_suffix(".npz"), **held)
        if rng.random() < 0.5:
            npz = path.with_suffix(".npz")
            npz.write_bytes(damaged(npz.read_bytes(), rng))
    elif way == 4:
        path.unlink()
        picture = path.with_suffix(pick(rng, (".png", ".tif", ".TIFF")))
        picture.write_bytes(encoded(rng, size=32))
        if rng.random() < 0.5:
            picture.write_bytes(damaged(picture.read_bytes(), rng))
    elif way == 5:
        path.unlink()
        pick(rng, SPECIALS)(path.with_suffix(pick(rng, (".png", ".npy", ".tif"))), folder)
    elif way == 6:
        canary = folder / CANARY
        np.save(path, np.array([_Touch(str(canary))], dtype=object), allow_pickle=True)
    else:
        path.rename(path.with_name(pick(rng, ("\x1b[31m.npy", "x" * 250 + ".npy", "=1.npy"))))


def _write_header(path: Path, header: str, array: Any) -> None:
    text = header.encode() + b"\n"
    path.write_bytes(
        b"\x93NUMPY\x01\x00" + (len(text) % 65536).to_bytes(2, "little") + text + array.tobytes()
    )


class _Touch:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)
