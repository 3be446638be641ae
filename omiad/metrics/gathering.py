"""Metrics whose state is lists of tensors, exchanged between processes as they are."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torchmetrics import Metric


class ListMetric(Metric):
    """A metric that keeps lists of CPU tensors of any shape and type.

    torchmetrics gathers tensor by tensor on the device of the backend, and needs as many of them
    in every process; here each process sends its lists once, whatever is in them.
    """

    is_differentiable = False
    full_state_update = False

    def add_lists(self, *names: str) -> None:
        """Add states that start empty and grow."""
        for name in names:
            self.add_state(name, default=[], dist_reduce_fx=None)

    def extend(self, name: str, values: Tensor) -> None:
        """Add values (N,) to a list of one tensor.

        A tensor for each batch would outlive the large arrays beside it on the heap, whose memory
        the process could then not give back.
        """
        setattr(self, name, [torch.cat([*getattr(self, name), values])])

    @property
    def update_called(self) -> bool:
        """True: a process without images takes part, and torchmetrics need not warn."""
        return True

    def _sync_dist(
        self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any = None
    ) -> None:
        mine = {name: getattr(self, name) for name in self._reductions}
        gathered: list[Any] = [None] * torch.distributed.get_world_size(process_group)
        torch.distributed.all_gather_object(gathered, mine, group=process_group)
        for name in mine:
            setattr(self, name, [tensor for theirs in gathered for tensor in theirs[name]])
