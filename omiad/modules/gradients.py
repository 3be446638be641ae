"""Gradients in manual optimisation: freeze a module, and mend gradients that are not finite."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Take a module's parameters out of the graph, and put their flags back afterwards."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def zero_nonfinite_gradients(module: nn.Module) -> int:
    """Replace NaN and infinite gradients by zero and +-1e5 (SiD's rule); return 1 if any was."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    if bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all()):
        return 0
    for gradient in gradients:
        gradient.nan_to_num_(nan=0.0, posinf=1e5, neginf=-1e5)
    return 1
