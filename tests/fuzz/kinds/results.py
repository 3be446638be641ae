"""Results and the arrays beside them, for report, compare and typeset."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from world import World

from fuzz.cases import INPUT, OUTPUT, Case, command
from fuzz.checks import clean_page
from fuzz.mutations import STRANGE, Rng, damaged, mutated, pick

MARKUP = "<img src=x onerror=alert(1)>"
PATHS = ("../secret.png", "../../in/secret.png", "{}/secret.png", "photographs/../../secret.png")
TEXTS = (MARKUP, f"</script>{MARKUP}", "javascript:alert(1)", *PATHS)
DTYPES = ("<f4", "<f8", "<i8", "<i4", "u1", "?", "<U3", "S4", "<c16", "<M8[s]", "<f2")


def results(world: World, rng: Rng, folder: Path) -> Case:
    """Mutate results.json, or the images or the gallery beside it."""
    run = folder / INPUT / "run"
    run.mkdir()
    for name in ("results.json", "results.images.npz", "results.gallery.npz"):
        shutil.copy(world.tested / name, run / name)
    Image.new("RGB", (32, 32), "red").save(folder / INPUT / "secret.png")
    (folder / INPUT / "photographs").mkdir()
    which = pick(rng, ("json", "json", "json", "images", "gallery"))
    record = json.loads((run / "results.json").read_text())
    record["root"] = f"{INPUT}/photographs" if which == "gallery" else record["root"]
    record["checkpoint"] = None  # no curves, which take a second to draw
    if which == "json":
        record = mutated(record, rng, strange=(*STRANGE[:-4], *TEXTS))
    path = run / "results.json"
    path.write_text(json.dumps(record, indent=2))
    if which == "json" and rng.random() < 0.25:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif which != "json":
        _attack_archive(run / f"results.{which}.npz", rng, folder)
    return _case(world, rng, folder, is_array=which != "json")


def _case(world: World, rng: Rng, folder: Path, *, is_array: bool) -> Case:
    mine, plain, out = (
        f"{INPUT}/run/results.json",
        str(world.tested / "results.json"),
        folder / OUTPUT,
    )
    door = pick(rng, ("report", "compare") if is_array else ("report", "compare", "typeset"))
    if door == "compare":
        pair = [plain, mine] if rng.random() < 0.5 else [mine, plain]
        option = pick(rng, ("", "", "--seeds"))
        return Case(
            command(f"compare {' '.join(pair)} --num_resamples 20 {option}"),
            check=lambda: _printed((folder / "said.txt").read_text()),
        )
    if door == "typeset":
        suffix, table = pick(rng, (".md", ".csv", ".tex")), pick(rng, (1, 3, 12, 13))
        output = out / f"table{suffix}"
        return Case(
            command(f"typeset {INPUT}/run --table {table} --output {OUTPUT}/{output.name}"),
            check=lambda: _printed(output.read_text()),
        )
    pictures = pick(rng, ("embedded", "folder"))
    both = pick(rng, ("", f" {world.tested}"))
    return Case(
        command(f"report {INPUT}/run{both} --out {OUTPUT}/page --pictures {pictures}"),
        check=lambda: clean_page(out / "page" / "index.html", raw=MARKUP, plain=world.page),
    )


def _printed(text: str) -> str | None:
    found = re.search(r"(?i)(?<![a-z])(nan|inf)(?![a-z])", text)
    return f"{found[0]} among the figures without a word" if found else None


def _attack_archive(path: Path, rng: Rng, folder: Path) -> None:
    """Mutate one to three arrays of an npz file, or its bytes."""
    if rng.random() < 0.2:
        path.write_bytes(damaged(path.read_bytes(), rng))
        return
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        key = pick(rng, sorted(arrays))
        category, _, column = key.rpartition("/")
        change = int(rng.integers(8))
        if change == 0:
            del arrays[key]
        elif change == 1:
            new = pick(rng, ("../../../x", "", "=1+1", "\x1b[31m", "nan", "cable"))
            arrays[pick(rng, (f"{new}/{column}", f"{category}/{new}", column))] = arrays[key]
        else:
            arrays[key] = changed(arrays[key], rng, folder)
        if not arrays:
            break
    np.savez(path, **arrays)


def changed(array: NDArray[Any], rng: Rng, folder: Path) -> Any:
    """Return an array of another type, shape or content."""
    way = 0 if array.dtype == object else int(rng.integers(7))
    if way == 0:
        return np.zeros(array.shape, pick(rng, DTYPES))
    if way == 1:
        return array[: len(array) // 2] if array.ndim else array[None]
    if way == 2:
        return pick(rng, (array[None], array.reshape(-1), np.zeros((0,)), np.float64(1), array.T))
    if way == 3:
        return np.concatenate([array, array]) if array.ndim else array
    if way == 4:
        return np.array([{"a": 1}, None], dtype=object)
    wide = array.astype(array.dtype if array.dtype.kind in "fcUSM" else np.float64)
    if wide.size and wide.dtype.kind == "U":
        text = pick(rng, (*TEXTS, "", "\x1b[31mred", "=1+1", "x" * 300, "/etc/hostname"))
        text = text.format(folder / INPUT)
        wide = wide.astype(f"<U{max(len(text), 1) + wide.dtype.itemsize // 4}")
        wide.reshape(-1)[int(rng.integers(wide.size))] = text
    elif wide.size and wide.dtype.kind in "fc":
        flat = wide.reshape(-1)
        flat[int(rng.integers(flat.size))] = pick(rng, (np.nan, np.inf, -np.inf, -1, 1e38, 256))
    return wide
