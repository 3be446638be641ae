"""Mutations of plain data and of bytes, drawn from a generator."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

LONG = 100_000
DEEP = 5_000

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**63, -(2**63), 2**70, 1e308, -1e308, 0.5, 1.5,
    math.nan, math.inf, -math.inf, "", " ", "x", "1", "nan", "x" * LONG, "../../../x", "/dev/zero",
    "=1+1", "\x1b[31mred\x1b[0m", "a\nb", "\u202e", "[/bold]", "<script>alert(1)</script>",
    "{{ 7 * 7 }}", "%s %d {0}", [], {}, [[]], [None], [1, "x"], {"": 0}, {"a": {"b": []}},
    [0] * LONG, (), (1,), (1, 2, 3, 4), b"", b"\xff\x00",
)  # fmt: skip
"""Values of every type that plain data may have, where another type or value is expected."""


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    """Return one of the options as it is."""
    return options[int(rng.integers(len(options)))]


def nested(depth: int = DEEP) -> Any:
    """Return lists within lists."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of every part of nested dicts and lists."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from nodes(value[key])


def mutated(
    data: Any,
    rng: Rng,
    *,
    strange: Sequence[Any] = STRANGE,
    changes: Sequence[Callable[..., None]] = (),
) -> Any:
    """Return a copy of nested dicts and lists with one to three mutations.

    Args:
        data: Dicts and lists of anything; leaves are shared with the copy.
        rng: Generator of all choices.
        strange: Values that replace others.
        changes: What may be done to a part; all of `CHANGES` by default.
    """
    data = copy_of(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        parts = list(nodes(data))
        if not parts:
            break
        container, key = pick(rng, parts)
        pick(rng, changes or CHANGES)(container, key, rng, strange, parts)
    return data


def copy_of(value: Any) -> Any:
    """Copy dicts and lists; share everything else."""
    if isinstance(value, dict):
        return type(value)((key, copy_of(each)) for key, each in value.items())
    if isinstance(value, list):
        return [copy_of(each) for each in value]
    return value


def _delete(container: Any, key: Any, *_: Any) -> None:
    del container[key]


def _replace(container: Any, key: Any, rng: Rng, strange: Sequence[Any], parts: Any) -> None:
    container[key] = copy.copy(pick(rng, strange))


def _shift(container: Any, key: Any, rng: Rng, strange: Sequence[Any], parts: Any) -> None:
    """Change a number to another one of its type; replace anything else."""
    value = container[key]
    if type(value) is int:
        container[key] = pick(rng, (-value, value + 1, value - 1, value * 1000, -1, 10**9))
    elif type(value) is float:
        container[key] = pick(rng, (-value, value * 1e9, value + 1.0, 1e-300, math.nan, math.inf))
    elif type(value) is bool:
        container[key] = not value
    elif type(value) is str:
        container[key] = pick(
            rng, (value + "x", value.upper(), value[:-1], value * 50, value[::-1])
        )
    else:
        _replace(container, key, rng, strange, parts)


def _add(container: Any, key: Any, rng: Rng, strange: Sequence[Any], parts: Any) -> None:
    if isinstance(container, dict):
        container[pick(rng, ("extra", "", "__class__", "a/b", 7))] = copy.copy(pick(rng, strange))
    else:
        container.append(copy.copy(pick(rng, strange)))


def _wrap(container: Any, key: Any, rng: Rng, *_: Any) -> None:
    value = container[key]
    container[key] = pick(rng, ([value], {"x": value}, [value, value], {"class_path": value}))


def _swap(
    container: Any, key: Any, rng: Rng, strange: Any, parts: Sequence[tuple[Any, Any]]
) -> None:
    other, name = pick(rng, parts)
    value = copy_of(other[name])  # a part that holds itself would be endless
    container[key] = value


def _rename(container: Any, key: Any, rng: Rng, *rest: Any) -> None:
    if isinstance(container, dict):
        container[pick(rng, (f"{key}x", str(key).upper(), "", "..", 0))] = container.pop(key)
    else:
        container.reverse()


def _deepen(container: Any, key: Any, rng: Rng, *_: Any) -> None:
    container[key] = nested(int(rng.integers(50, 500)))


KEEPING = (_delete, _delete, _wrap, _rename, _deepen)
"""Changes that make no other valid value: what still succeeds must give the values from before."""

CHANGES = (*KEEPING, _replace, _replace, _replace, _shift, _shift, _add, _swap)


def damaged(content: bytes, rng: Rng) -> bytes:
    """Return bytes with flipped bits, or cut, spliced, repeated or overwritten."""
    if not content:
        return bytes(rng.integers(0, 256, 16, np.uint8))
    kind, size = int(rng.integers(6)), len(content)
    at = int(rng.integers(min(size, 64) if rng.random() < 0.3 else size))  # headers are short
    if kind <= 1:
        changed = bytearray(content)
        for place in (at, *rng.integers(0, size, int(rng.choice([0, 0, 1, 7])))):
            changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    length = int(rng.integers(1, 1 + min(size, 256)))
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + content[at + length :]
    if kind == 4:
        return content[:at] + content[at : at + length] * int(rng.integers(2, 5)) + content[at:]
    filled = pick(rng, (b"\x00", b"\xff", bytes(rng.integers(0, 256, 1, np.uint8)))) * length
    return content[:at] + filled + content[at + length :]
