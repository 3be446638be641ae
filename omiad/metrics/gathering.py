"""Exchange of objects between the processes of a distributed test."""

from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")


def gather(mine: T) -> list[T]:
    """Return this object of every process, by rank; every process must call this function."""
    if not torch.distributed.is_initialized():
        return [mine]
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return everyone
