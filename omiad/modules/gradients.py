"""What stage 2 does with gradients by hand: whose they are, whether they are numbers, how large."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


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


def gradient_norm(loss: Tensor, inputs: Iterable[Tensor]) -> Tensor:
    """Return the norm of d loss / d inputs over all inputs; the graph and `.grad` stay as they are.

    Args:
        loss: A number with its graph.
        inputs: Tensors the loss depends on.
    """
    gradients = torch.autograd.grad(loss, list(inputs), retain_graph=True)
    norm: Tensor = torch.stack(torch._foreach_norm(list(gradients))).norm()
    return norm


def parameter_distance(a: nn.Module, b: nn.Module) -> float:
    """Return ||a - b|| / ||b|| over all parameters: how far a moved from b."""
    norms = torch._foreach_norm([p.detach() for p in b.parameters()])
    gaps = torch._foreach_norm(
        [p.detach() - q.detach() for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    )
    return float(torch.stack(gaps).norm() / torch.stack(norms).norm())
