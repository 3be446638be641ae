"""Refuse what the parser of the command line lets through, or what makes it fail."""

from collections.abc import Callable
from contextlib import suppress
from pkgutil import resolve_name
from types import NoneType
from typing import Any, get_args, get_type_hints

from omiad.errors import InputError
from omiad.names import one_line

SECTIONS = ("data", "trainer", "checkpoint")
"""Entries of a configuration that are groups of entries."""

MOST_SHOWN = 1000
"""Most characters that are shown of the message of a library, which may hold a whole file."""


def refuse_nulls(function: Callable[..., object], given: Any, *, where: str) -> None:
    """Refuse arguments of None where a function or class, or one named in them, takes no None.

    Args:
        function: What the arguments are for.
        given: The arguments by name, or None for no arguments; classes are {class_path, init_args}.
        where: What the arguments are, for the message.

    Raises:
        InputError: If an argument is None and its type has no None.
    """
    hints = parameter_types(function)
    # The items of a jsonargparse.Namespace are those of all levels; `vars` has the first alone.
    entries = given if isinstance(given, dict) else vars(given) if given else {}
    for name, value in entries.items():
        entry = f"{where}.{one_line(str(name))[:80]}"
        if value is None and name in hints and not _takes_none(hints[name]):
            raise InputError(f"{entry} is null. Give a value, or leave the entry out.")
        path = value.get("class_path") if hasattr(value, "get") else None
        if isinstance(path, str):
            refuse_nulls(_named(path), value.get("init_args"), where=entry)


def check_structure(config: Any, *, where: str) -> None:
    """Refuse a configuration whose sections, or arguments of a class, are no group of entries.

    Args:
        config: What a configuration file says.
        where: The file, for the message.

    Raises:
        InputError: If a section or arguments are something else.
    """
    groups = {} if config is None else {"": config}
    if isinstance(config, dict):
        # A section may also be the path of a file with its entries.
        groups = {n: config[n] for n in SECTIONS if not isinstance(config.get(n, ""), str)}
    left = [("", config)]
    while left:
        entry, value = left.pop()
        named = isinstance(value, dict)
        parts = value.items() if named else enumerate(value) if isinstance(value, list) else ()
        left += [(f"{entry}.{name}".lstrip("."), part) for name, part in parts]
        if named and "class_path" in value and value.get("init_args") is not None:
            groups[f"{entry}.init_args"] = value["init_args"]
    for name, group in groups.items():
        if not isinstance(group, dict):
            entry = f": {one_line(name)[:80]}" if name else ""
            raise InputError(
                f"{where}{entry} is a {type(group).__name__}, not a group of entries. Correct the "
                f"file."
            )


def cropped(message: object) -> str:
    """Return the beginning of the message of a library."""
    text = str(message)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} [...]"


def parameter_types(function: Callable[..., object]) -> dict[str, Any]:
    """Return the types of the parameters of a function, or of a class and its bases in omiad."""
    bases = function.__mro__[:0:-1] if isinstance(function, type) else ()
    ours = [vars(base).get("__init__") for base in bases if base.__module__.startswith("omiad.")]
    last = vars(function).get("__init__") if isinstance(function, type) else function
    hints: dict[str, Any] = {}
    with suppress(NameError, TypeError, AttributeError):  # code of someone else
        for part in filter(None, (*ours, last)):
            hints |= get_type_hints(part)
    return hints


def _takes_none(hint: Any) -> bool:
    return hint in (Any, None, NoneType, object) or NoneType in get_args(hint)


def _named(path: str) -> Callable[..., object]:
    """Return what a class path names, which the parser has imported already."""
    try:
        return resolve_name(path)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError):
        return dict
