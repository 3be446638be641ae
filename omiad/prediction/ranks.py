"""Several processes that share the photographs, launched and joined by Lightning."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.fabric import Fabric

from omiad.devices import pick_device
from omiad.errors import InputError
from omiad.terminal import console


@dataclass(frozen=True)
class Ranks:
    """Processes that share the photographs, as `omiad fit` counts them.

    Attributes:
        devices: GPUs of each machine, or processes on a machine without one.
        num_nodes: Machines. A launcher, such as torchrun, starts the command on each of them.
    """

    devices: int = 1
    num_nodes: int = 1


ALONE = Ranks()


@dataclass(frozen=True)
class Share:
    """The part of the photographs that one process scores: every `size`-th one.

    Attributes:
        rank: Number of the process, from 0.
        size: Number of processes.
        wait: Waits until all processes have come here.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], object] = lambda: None

    def number(self, count: int) -> int:
        """Return the number of the photograph that comes after `count` of this share."""
        return self.rank + self.size * count


def launch(ranks: Ranks, device: str) -> tuple[Share, torch.device]:
    """Start the other processes, or join them if a launcher has started all.

    Raises:
        InputError: If a number is below 1, or a single GPU is named for several processes.
    """
    for name, value in vars(ranks).items():
        if value < 1:
            raise InputError(f"--trainer.{name} must be at least 1, but got {value}.")
    if ranks == ALONE:
        return Share(), pick_device(device)
    if ":" in device:
        raise InputError(
            f"--device {device} is one device, and --trainer.devices asks for several processes. "
            f"Leave --device out, or give cpu or cuda."
        )
    fabric = Fabric(
        accelerator=device, devices=ranks.devices, num_nodes=ranks.num_nodes, strategy="ddp"
    )
    fabric.launch()
    if fabric.global_rank:
        console().quiet = True  # the first process speaks for all
    return Share(fabric.global_rank, fabric.world_size, fabric.barrier), fabric.device
