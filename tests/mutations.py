"""Damaged files, and malformed structures that carry a right digest."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import torch

from omiad.checkpoint import CHECKPOINT_KEY, seal

Path = tuple[Any, ...]

REPLACEMENTS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**9, 2**70, -(2**70), 0.0, -1.5, 1e300),
    *(float("nan"), float("inf"), "", "x", "os.system", "\x1b[31mred", "a" * 3000, "../../x"),
    *([], {}, (), [1], [None], [[]], {"a": 1}, {0: 0}, [10**9, 1], ["os.system"]),
    {"class_path": "os.system", "init_args": {"command": "touch pwned"}},
    {"class_path": "omiad.networks.UNet", "init_args": {"width": 10**9}},
    *(torch.zeros(3), torch.tensor(float("nan")), torch.zeros(0), torch.zeros(2, 2).half()),
)
"""Values that take the place of others."""


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return a file with one flipped bit, or cut at a random byte."""
    position = rng.randrange(len(content))
    if rng.random() < 0.2:
        return content[:position]
    changed = bytearray(content)
    changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every entry; of long groups, such as the weights, some."""
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    elif isinstance(value, (list, tuple)):
        keys = list(range(len(value)))
    else:
        return
    for key in keys if len(keys) < 60 else keys[:: len(keys) // 6]:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def mutated(checkpoint: dict[str, Any], rng: random.Random) -> tuple[str, dict[str, Any]]:
    """Return a name and a copy in which one entry is deleted, replaced, nested or added."""
    result = copy.deepcopy(checkpoint)
    tops = list(result)
    paths = list(places(result))
    # Each entry of the first level is as likely as any other, however much it holds.
    top = rng.choice(tops)
    *parents, key = rng.choice([p for p in paths if p[0] == top])
    holder = result
    for parent in parents:
        holder = holder[parent]
    if isinstance(holder, tuple):
        return mutated(checkpoint, rng)
    kind = rng.choice(("delete", "replace", "replace", "replace", "nest", "add"))
    if kind == "delete":
        del holder[key]
    elif kind == "replace":
        holder[key] = value = rng.choice(REPLACEMENTS)
        kind = f"replace by {repr(value)[:40]}"
    elif kind == "nest":
        holder[key] = [holder[key]]
    elif isinstance(holder, dict):
        holder["unknown"] = rng.choice(REPLACEMENTS)
    else:
        holder.append(rng.choice(REPLACEMENTS))
    record = result.get(CHECKPOINT_KEY)
    if isinstance(record, dict):
        seal(result)
    return f"{kind} {'.'.join(map(str, (*parents, key)))}", result
