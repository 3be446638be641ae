"""The device that a command computes on, and its time."""

import time

import torch

from omiad.errors import InputError


def pick_device(name: str) -> torch.device:
    """Return a device by its name; "auto" is a GPU if there is one, and the CPU otherwise."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Device '{name}' is not available here. Use --device cpu.") from error
    return device


def idle_time(device: torch.device) -> float:
    """Wait until a device has nothing left to do, and return the time in seconds."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
