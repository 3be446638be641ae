"""Check what resumes a trainer, by the states of the objects that it will be given to."""

import inspect
import math
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torch.optim import Optimizer

from omiad.errors import InputError
from omiad.names import one_line

STATES = ("optimizer_states", "lr_schedulers", "loops")
"""Entries of a checkpoint that resume a trainer."""

POSITION = ("epoch", "batches", "num_batches", "num_samples", "batch_size", "seed", "world_size")
"""What tells where a run stands in its data; see `ResumableLoader`."""

LARGEST = 2**53
"""No count of a run is larger."""


def check_states(stored: dict[str, Any], trainer: Trainer) -> None:
    """Reject states that optimisers, schedulers or loops of a trainer could not continue from.

    torch and Lightning take any values, and would fail, or go wrong, some steps later. Values that
    this version of torch does not know are removed.

    Raises:
        InputError: If a state has another structure than those of the trainer.
    """
    optimizers = trainer.optimizers
    _require(stored["optimizer_states"], list, len(optimizers), "optimizer_states")
    for i, (given, optimizer) in enumerate(
        zip(stored["optimizer_states"], optimizers, strict=True)
    ):
        where, mine = f"optimizer_states[{i}]", optimizer.state_dict()["param_groups"]
        _require(given.get("param_groups"), list, len(mine), f"{where}.param_groups")
        for theirs, group in zip(given["param_groups"], mine, strict=True):
            _compare_known(theirs, group, f"{where}.param_groups")
            if theirs.get("params") != group["params"]:
                _refuse(f"{where}.param_groups", "has other parameters")
        _check_moments(given.get("state"), optimizer, f"{where}.state")
    schedulers = [each.scheduler.state_dict() for each in trainer.lr_scheduler_configs]
    _require(stored["lr_schedulers"], list, len(schedulers), "lr_schedulers")
    for theirs, scheduler in zip(stored["lr_schedulers"], schedulers, strict=True):
        _compare_known(theirs, scheduler, "lr_schedulers")
    _check_loops(stored["loops"], trainer)


def _check_moments(given: Any, optimizer: Optimizer, where: str) -> None:
    """Reject the state of an optimiser unless each parameter has what a step needs, or nothing."""
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    _require(given, dict, None, where)
    names = _names_of_moments(optimizer)
    for index, moments in given.items():
        if not (isinstance(index, int) and 0 <= index < len(parameters)):
            _refuse(where, f"has a parameter {one_line(str(index)[:40])}")
        _require(moments, dict, None, f"{where}[{index}]")
        if moments.keys() != names:
            _refuse(f"{where}[{index}]", "has other entries than this optimiser's")
        shapes = ((), tuple(parameters[index].shape))
        for name, value in moments.items():
            fits = isinstance(value, Tensor) and tuple(value.shape) in shapes
            if not (fits and value.isfinite().all()):
                _refuse(f"{where}[{index}].{name}", "has another shape or is not finite")
            if (value.ndim == 0) != (name == "step") and shapes[1] != ():
                _refuse(f"{where}[{index}].{name}", "has another shape")


def _names_of_moments(optimizer: Optimizer) -> set[str]:
    """Return what an optimiser keeps of each parameter, found by one step of its like."""
    known = inspect.signature(type(optimizer)).parameters
    group = {k: v for k, v in optimizer.param_groups[0].items() if k in known and k != "params"}
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    probe = type(optimizer)([parameter], **group)
    probe.step()
    return {*probe.state[parameter]}


def _compare_known(given: Any, mine: dict[str, Any], where: str) -> None:
    """Compare entries; remove those that this torch does not know, and add its new switches."""
    _require(given, dict, None, where)
    for key in given.keys() - mine.keys():
        del given[key]
    switches = {key: value for key, value in mine.items() if value is None or value is False}
    given |= {key: value for key, value in switches.items() if key not in given}
    _compare(given, mine, where)


def _check_loops(given: Any, trainer: Trainer) -> None:
    """Reject positions of Lightning's loops that are no whole numbers."""
    _compare(given, {"fit_loop": trainer.fit_loop.state_dict() | {"state_dict": {}}}, "loops")
    states = given["fit_loop"]["state_dict"].get("combined_loader", [])
    where = "loops.fit_loop.state_dict.combined_loader"
    _require(states, list, None, where)
    for state in states:
        _require(state, dict, None, where)
        numbers = [isinstance(v, int) and 0 <= v < LARGEST for v in state.values()]
        if not (all(numbers) and {*POSITION} <= state.keys()):
            _refuse(where, "is not a position in the data")


def _compare(given: Any, mine: Any, where: str) -> None:
    """Reject data that lack a key, or whose lists have another length, or values another type."""
    if isinstance(mine, dict):
        _require(given, dict, None, where)
        if missing := mine.keys() - given.keys():
            _refuse(where, f"has no {min(map(str, missing))}")
        for key, value in mine.items():
            _compare(given[key], value, f"{where}.{key}")
    elif isinstance(mine, (list, tuple)):
        _require(given, (list, tuple), len(mine), where)
        for i, value in enumerate(mine):
            _compare(given[i], value, f"{where}[{i}]")
    elif isinstance(mine, bool) or mine is None:
        if type(given) is not type(mine):
            _refuse(where, f"is a {type(given).__name__}, not a {type(mine).__name__}")
    elif isinstance(mine, (int, float)):
        is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
        if not (is_number and math.isfinite(given) and min(mine, 0) <= given < LARGEST):
            _refuse(where, "is not a number in range")
        if isinstance(mine, int) and not isinstance(given, int) and where.startswith("loops"):
            _refuse(where, "is not a whole number")


def _require(value: Any, kind: Any, length: int | None, where: str) -> None:
    if not isinstance(value, kind) or (length is not None and len(value) != length):
        _refuse(where, "is missing or has another structure than this run's")


def _refuse(where: str, what: str) -> None:
    raise InputError(
        f"The checkpoint cannot be resumed: {where} {what}. The file is damaged, or the run has "
        f"another optimiser; give the options of the first run, or another checkpoint."
    )
