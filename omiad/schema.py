"""Check plain data from a file against annotated types, before anything uses the data."""

import sys
from collections.abc import Mapping
from functools import cache
from itertools import chain, repeat
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from omiad.errors import InputError
from omiad.names import one_line

_hints = cache(get_type_hints)  # which is slow, and a file may have many rows of one type


def conform(
    value: Any,
    kind: Any,
    *,
    where: str,
    fix: str = "The file is damaged, or another version of omiad wrote it; make it anew.",
) -> Any:
    """Return a value that has the type `kind`, as it is.

    Known types are those of plain data: bool, int, float (a finite number), str, None, unions,
    Literal, list[X], tuple[X, Y], tuple[X, ...], dict[str, X], TypedDict, Any, and any other class,
    whose instances are accepted. Entries that a TypedDict does not name are left as they are.

    Args:
        value: Data from a file.
        kind: The type that the data must have.
        where: What the value is, for the message, such as "'results.json': mean".
        fix: What to do, for the message.

    Raises:
        InputError: If the value has another type; the message names the entry.
    """
    if fault := _fault(value, kind, where):
        raise InputError(f"{fault}. {fix}")
    return value


def _fault(value: Any, kind: Any, where: str) -> str | None:
    """Return a sentence, without its full stop, about the first part of another type."""
    origin, arguments = get_origin(kind), get_args(kind)
    fault = None
    if origin in (Union, UnionType):
        faults = [_fault(value, each, where) for each in arguments if each is not NoneType]
        is_right = None in faults or (value is None and NoneType in arguments)
        fault = None if is_right else faults[0]
    elif origin is Literal:
        if not any(type(value) is type(each) and value == each for each in arguments):
            fault = f"{where} is {_shown(value)}, not one of {_listed(arguments)}"
    elif is_typeddict(kind):
        fault = _fault_of_entries(value, kind, where)
    elif kind is float:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and abs(value) <= sys.float_info.max):  # an int may be any size
            fault = f"{where} is {_shown(value)}, not a finite number"
    elif kind is not Any:
        wanted = origin or (NoneType if kind is None else kind)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            fault = f"{where} is {_shown(value)}, not {wanted.__name__}"
        elif arguments:
            fault = _fault_of_parts(value, arguments, where)
    return fault


def _fault_of_parts(value: Any, arguments: tuple[Any, ...], where: str) -> str | None:
    """Look at the parts of a dict, list or tuple, whose types are the arguments."""
    if isinstance(value, dict):
        keys = ((key, arguments[0], f"a key of {where}") for key in value)
        parts = ((part, arguments[1], _entry(where, key)) for key, part in value.items())
        return next(filter(None, (_fault(*each) for each in chain(keys, parts))), None)
    is_fixed = isinstance(value, tuple) and arguments[-1] is not Ellipsis
    if is_fixed and len(value) != len(arguments):
        return f"{where} has {len(value)} entries, not {len(arguments)}"
    kinds = arguments if is_fixed else repeat(arguments[0])
    pairs = enumerate(zip(value, kinds, strict=False))
    faults = (_fault(part, kind, f"{where}[{i}]") for i, (part, kind) in pairs)
    return next(filter(None, faults), None)


def _fault_of_entries(value: Any, kind: Any, where: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} is {_shown(value)}, not a group of entries"
    hints = _hints(kind)
    if missing := kind.__required_keys__ - value.keys():
        return f"{where} has no entry {_listed(sorted(missing))}"
    unsure = [key for key in hints if key in value and not _is_plainly(value[key], hints[key])]
    parts = ((value[key], hints[key], _entry(where, key)) for key in unsure)
    return next(filter(None, (_fault(*part) for part in parts)), None)


def _is_plainly(value: Any, kind: Any) -> bool:
    """Return whether a value has a type for sure, without the words that a fault needs."""
    return (type(value) is kind and kind is not float) or (value is None and _allows_none(kind))


@cache
def _allows_none(kind: Any) -> bool:
    return NoneType in get_args(kind)


def _entry(where: str, key: object) -> str:
    return f"{where}.{one_line(str(key))}" if len(str(key)) < 100 else f"{where}.(long key)"


def _shown(value: object) -> str:
    text = one_line(repr(value)) if isinstance(value, (str, int, float, bool, NoneType)) else ""
    return text if text and len(text) < 60 else f"a {type(value).__name__}"


def _listed(values: Any) -> str:
    return ", ".join(str(each) for each in values)
