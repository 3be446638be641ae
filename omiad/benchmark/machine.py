"""What a figure of speed depends on besides the model: the machine and its software."""

import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from omiad.version import __version__

_MODULES = {"pillow": "PIL"}
"""Modules whose packages have another name."""

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def machine(device: torch.device) -> dict[str, str | int]:
    """Return the processor, the device and its threads, and the versions of what computes."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "name": name,
        "threads": torch.get_num_threads(),
        "system": platform.platform(terse=True),
        "omiad": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **_versions(("timm", "pillow", "onnxruntime", "openvino")),
    }


def forget_peak(device: torch.device) -> None:
    """Begin anew to note the highest use of memory, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _RESET.exists():
        _RESET.write_text("5")  # Linux: VmHWM becomes VmRSS


def peak_megabytes(device: torch.device) -> float | None:
    """Return the highest use in MB of 10**6 bytes: of a GPU by torch, else of the process.

    It is None where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415  Unix only

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6


def _processor() -> str:
    """Return the name of the processor, which Linux tells in a file only."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions(packages: Sequence[str]) -> dict[str, str]:
    return {name: version(name) for name in packages if find_spec(_MODULES.get(name, name))}
