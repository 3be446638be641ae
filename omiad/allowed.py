"""The classes that a checkpoint may name, and the arguments that it may give them.

A checkpoint may come from anyone, so its classes are those listed here and in `omiad.networks`, and
its arguments have the types of our own parameters.
"""

import inspect
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from omiad import modules
from omiad.arguments import parameter_types
from omiad.errors import InputError
from omiad.modules import TrainingModule
from omiad.names import one_line
from omiad.networks.registry import NETWORKS, PRESETS, check_network, check_network_arguments
from omiad.schema import conform

SOURCES = ("teacher", "detector")
"""Model arguments that name a checkpoint; the run takes its data settings from there."""

MODULES = {
    f"omiad.modules.{name}": cls
    for name in modules.__all__
    if issubclass(cls := getattr(modules, name), TrainingModule) and not inspect.isabstract(cls)
}
"""The modules that a checkpoint may name."""

OPTIMIZERS = frozenset(
    [
        *("omiad.modules.amdm.paper_adam", "omiad.modules.omiad.sida_adam"),
        *(f"torch.optim.{name}" for name in ("Adagrad", "Adam", "Adamax", "AdamW", "NAdam")),
        *(f"torch.optim.{name}" for name in ("RAdam", "RMSprop", "SGD")),
    ]
)
"""The optimisers that a checkpoint may name."""


def check_arguments(cls: type, given: dict[str, Any], *, where: str) -> None:
    """Reject arguments from a checkpoint that are not plain data of the types of a constructor.

    Raises:
        InputError: If an argument is unknown, has another type, or names a class outside the lists.
    """
    hints = parameter_types(cls)
    for name, value in given.items():
        entry = f"{where}.{one_line(str(name))[:80]}"
        if name not in hints:
            raise InputError(f"{entry} is unknown to this version of omiad. Train the model again.")
        if name == "network":
            _check_network(value, entry)
        elif name.endswith("optimizer"):
            _check_optimizer(value, entry)
        elif fields := _fields(hints[name]):
            if value is not None:
                conform(value, dict[str, Any], where=entry)
                for field, part in value.items():
                    conform(part, fields.get(field, None), where=f"{entry}.{one_line(field)[:80]}")
        elif name in SOURCES or name == "weights":
            conform(value, str, where=entry)
        else:
            conform(value, hints[name], where=entry)


def _fields(hint: Any) -> dict[str, Any]:
    """Return the types of the fields of a dataclass, or of a dataclass or None."""
    options = (hint, *getattr(hint, "__args__", ()))
    return next((get_type_hints(each) for each in options if is_dataclass(each)), {})


def _reference(value: Any, entry: str) -> tuple[str, dict[str, Any]]:
    """Return class path and arguments of a class in a configuration."""
    if isinstance(value, str):
        return value, {}
    conform(value, dict[str, Any], where=entry)
    conform(value.get("class_path"), str, where=f"{entry}.class_path")
    if unknown := value.keys() - {"class_path", "init_args"}:
        raise InputError(f"{entry} has an unknown {one_line(min(unknown))[:80]}.")
    arguments = value.get("init_args") or {}
    conform(arguments, dict[str, Any], where=f"{entry}.init_args")
    return value["class_path"], arguments


def _check_network(value: Any, entry: str) -> None:
    path, arguments = _reference(value, entry)
    if path in PRESETS and not arguments:
        return
    check_network(path)
    check_network_arguments(NETWORKS[path], arguments)
    conform(arguments, dict[str, bool | int | float | str | list[Any] | None], where=entry)


def _check_optimizer(value: Any, entry: str) -> None:
    path, arguments = _reference(value, entry)
    if path not in OPTIMIZERS:
        raise InputError(
            f"{entry} names '{one_line(path)[:120]}', which is no optimiser that a checkpoint may "
            f"name, and is not imported. Give it yourself, in a file for --config."
        )
    plain = bool | int | float | None | list[float] | tuple[float, ...]
    conform(arguments, dict[str, plain], where=entry)
