"""Runs that somebody else wrote: seeded changes of results.json, its arrays and metrics.csv."""

import io
import json
import math
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from omiad.cli import main
from omiad.files import digest

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2, 0.5, 1e308, -1e-9, 10**400, math.nan, math.inf, -math.inf, "", "x",
    "../x", "mean", "\x1b[31m", "\ud800", [], {}, [None], {"a": {}}, [[0.1, 0.2]], "=1+1",
)  # fmt: skip
"""What stands in the place of another value."""


def evaluated(root: Path, folder: Path, *extra: str, quality: float = 2.0, size: int = 32) -> Path:
    """Return the folder of `omiad evaluate` for a method that sees defects through noise."""
    rng, maps = np.random.default_rng(0), folder / "maps"
    for image in sorted(root.glob("*/test/*/*.png")):
        scores = rng.normal(size=(size, size)).astype(np.float32)
        if image.parent.name != "good":
            scores[size // 4 : size // 2, size // 4 : size // 2] += np.float32(quality)
        path = maps / image.relative_to(root).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, scores)
    given = [f"--maps={maps}", f"--data.root={root}", f"--image_size={size}"]
    steps = ["--pool_size=1", "--num_resamples=20", f"--output={folder / 'results.json'}"]
    main(["evaluate", *given, *steps, *extra])
    shutil.rmtree(maps)
    return folder


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every entry of nested data as its container and key."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    found = [(value, key) for key in keys]
    return found + [place for key in keys for place in places(value[key])]


def changed_json(text: str, rng: random.Random) -> bytes:
    """Return a results.json with one to three faults."""
    record = json.loads(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not places(record):
            break
        container, key = rng.choice(places(record))
        kind = rng.choice(("delete", "replace", "replace", "replace", "rename", "nest", "move"))
        if kind == "delete":
            del container[key]
        elif kind == "replace":
            container[key] = rng.choice(VALUES)
        elif kind == "rename" and isinstance(container, dict):
            container[str(rng.choice(VALUES))] = container.pop(key)
        elif kind == "nest":
            container[key] = [container[key]]
        else:
            container[key] = rng.choice(places(record))[0]
            record = json.loads(json.dumps(record, default=str)) if not is_cyclic(record) else {}
    content = json.dumps(record).encode()
    damage = rng.randrange(20)
    if damage == 0:
        return content[: rng.randrange(len(content))]
    if damage == 1:
        return flipped(content, rng)
    if damage == 2:
        return b"[" * 100_000 + content
    return content


def is_cyclic(record: Any) -> bool:
    try:
        json.dumps(record)
    except ValueError:
        return True
    return False


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Return bytes of which some bits are flipped."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 30))):
        found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
    return bytes(found)


def _shorter(array: np.ndarray, rng: random.Random) -> np.ndarray:
    return array[: rng.randrange(len(array) + 1)] if array.ndim else array


def _other_number(array: np.ndarray, rng: random.Random) -> np.ndarray:
    array = array.copy()
    if array.dtype.kind == "f" and array.size:
        array.flat[rng.randrange(array.size)] = rng.choice((math.nan, math.inf, -1.0, 1e30))
    return array


def _other_name(array: np.ndarray, rng: random.Random) -> np.ndarray:
    if array.dtype.kind != "U" or not array.size:
        return array
    names = array.tolist()
    names[rng.randrange(len(names))] = rng.choice(
        ("../../secret.png", "/etc/hostname", "", "\x1b[1m")
    )
    return np.array(names)


ARRAYS: tuple[Callable[[np.ndarray, random.Random], np.ndarray], ...] = (
    _shorter,
    _other_number,
    _other_name,
    lambda array, rng: array.astype(rng.choice(("f4", "i8", "U9", "S3", "O", "c8", "?")))
    if array.dtype.kind != "U"
    else array.astype(object),
    lambda array, rng: array[None],
    lambda array, rng: array.T,
    lambda array, rng: np.zeros(rng.choice(((), (0,), (1, 0), (2, 2, 2, 2))), array.dtype),
    lambda array, rng: ~array if array.dtype.kind == "b" else array[::-1],
)  # fmt: skip
"""Changes of one array."""


def changed_npz(content: bytes, rng: random.Random) -> bytes:
    """Return an npz file with one to three faults in its arrays, members or bytes."""
    damage = rng.randrange(10)
    if damage == 0:
        return flipped(content, rng)
    if damage == 1:
        return content[: rng.randrange(len(content))]
    with np.load(io.BytesIO(content)) as archive:
        arrays = dict(archive)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(list(arrays))
        what = rng.randrange(8)
        if what == 0:
            del arrays[name]
        elif what == 1:
            other = rng.choice(
                ("../x/score", "/score", "a/b/c", "mean/score", f"{name}2", "\x1b/name")
            )
            arrays[other] = arrays.pop(name)
        else:
            arrays[name] = rng.choice(ARRAYS)(arrays[name], rng)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=True)
    return file.getvalue() if damage != 2 else flipped(file.getvalue(), rng)


def changed_csv(text: str, rng: random.Random) -> bytes:
    """Return a metrics.csv with one to three faults."""
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(rows)
        what = rng.randrange(4)
        if what == 0:
            row[:] = row[: rng.randrange(len(row) + 1)]
        elif what == 1 and row:
            row[rng.randrange(len(row))] = str(rng.choice(VALUES)).encode(errors="replace").decode()
        elif what == 2:
            row.append("1")
        else:
            rows.remove(row)
            rows = rows or [[""]]
    content = "\n".join(map(",".join, rows)).encode()
    return flipped(content, rng) if content and rng.randrange(5) == 0 else content


def changed_run(run: Path, folder: Path, kind: str, seed: int) -> Path:
    """Copy a run folder to a new folder with changes of one kind of file."""
    rng = random.Random(f"{kind} {seed}")
    shutil.copytree(run, folder)
    results = folder / "results.json"
    if kind == "json":
        results.write_bytes(changed_json(results.read_text(), rng))
    elif kind == "csv":
        table = folder / "metrics.csv"
        table.write_bytes(changed_csv(table.read_text(), rng))
    else:
        arrays = folder / f"results.{kind}.npz"
        arrays.write_bytes(changed_npz(arrays.read_bytes(), rng))
        if rng.randrange(4):  # whoever writes a file can write its digest too
            signed(results, arrays)
    return folder


def signed(results: Path, arrays: Path) -> None:
    """Record the digest of changed arrays in results.json."""
    record = json.loads(results.read_text())
    record["digests"][arrays.name.split(".")[1]] = digest(arrays)
    results.write_text(json.dumps(record))
