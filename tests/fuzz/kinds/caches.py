"""Damaged feature caches: wrong features are never served, and every command says what is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from world import World, data_of

from fuzz.cases import OUTPUT, Case, command
from fuzz.mutations import STRANGE, Rng, damaged, mutated, pick

PLAIN = tuple(each for each in STRANGE if not isinstance(each, (bytes, tuple)))
OURS = f"{OUTPUT}/cache"


def caches(world: World, rng: Rng, folder: Path) -> Case:
    """Damage the record, the index, the statistics or the rows of a cache."""
    shutil.copytree(world.cache, folder / OURS)
    (store,) = (folder / OURS).iterdir()
    name = pick(rng, ("record.json", "0.index", "train.json", "0.rows"))
    path = store / name
    if name == "0.rows" or rng.random() < 0.3:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif name == "0.index":
        lines: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
        lines = mutated(lines, rng, strange=PLAIN)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), rng, strange=PLAIN)))
    if name == "0.rows":  # reading trusts the rows, and `verify` looks at all of them
        return Case(command(f"cache verify --cache_dir {OURS}"), check=lambda: _same(world, folder))
    door = pick(rng, ("info", "json", "verify", "prune", "read", "read", "read"))
    if door == "read":
        return Case(call=lambda: _read(world))
    words = {"info": "info", "json": "info --json", "verify": "verify", "prune": "prune"}
    return Case(command(f"cache {words[door]} --cache_dir {OURS}"))


def _read(world: World) -> None:
    """Read the features as a fit does, and compare them with those of an intact cache."""
    data = data_of(world, OURS)
    features, right = data.features("train"), world.features
    for index, row in enumerate(right):
        if not torch.equal(features[index], row):
            raise AssertionError(f"other features of image {index} without a word")
    numbers = zip(features.statistics, world.statistics, strict=True)
    for mine, other in numbers:
        if not torch.equal(torch.as_tensor(mine), torch.as_tensor(other)):
            raise AssertionError("other statistics without a word")


def _same(world: World, folder: Path) -> str | None:
    """Say whether `cache verify` accepts rows that differ; lost and further rows are allowed."""
    (store,) = (folder / OURS).iterdir()
    (intact,) = world.cache.iterdir()
    rows, right = ((of / "0.rows").read_bytes() for of in (store, intact))
    length = min(len(rows), len(right))
    is_same = rows[:length] == right[:length]
    return None if is_same else "`cache verify` accepts damaged rows"
