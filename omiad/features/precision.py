"""Precision that does not depend on the caller."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

Model = TypeVar("Model")
Options = ParamSpec("Options")
Result = TypeVar("Result")


def without_autocast(
    method: Callable[Concatenate[Model, Tensor, Options], Result],
) -> Callable[Concatenate[Model, Tensor, Options], Result]:
    """Return a method of a tensor that ignores the precision that its caller autocasts to."""

    @wraps(method)
    def run(self: Model, x: Tensor, /, *args: Options.args, **kwargs: Options.kwargs) -> Result:
        with torch.autocast(x.device.type, enabled=False):
            return method(self, x, *args, **kwargs)

    return run
