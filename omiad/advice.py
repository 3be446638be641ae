"""Advice of libraries that does not apply to omiad's runs, and how it is left out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

IGNORED_WARNINGS = (
    ".*does not have many workers.*",  # features come from a memory-mapped file
    ".*is already saved during checkpointing.*",
    ".*is smaller than the logging interval.*",  # steps are counted across epochs
    ".*Using `DistributedSampler` with the dataloaders.*",  # ours repeats no image
    ".*in eval mode at the start of training.*",  # frozen on purpose
    ".*LeafSpec.*is deprecated.*",  # Lightning's own call
    ".*JSONARGPARSE_DEPRECATION_WARNINGS.*",  # Lightning's own use
)

_LOGGERS = tuple(logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric"))


def ignore_advice() -> None:
    """Leave out the advice from now on, for a process that belongs to omiad."""
    for each in _LOGGERS:
        each.setLevel(logging.WARNING)
    for message in IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def advice_ignored() -> Iterator[None]:
    """Leave out the advice inside a `with` block, for the process of a caller."""
    levels = [each.level for each in _LOGGERS]
    with warnings.catch_warnings():
        ignore_advice()
        try:
            yield
        finally:
            for each, level in zip(_LOGGERS, levels, strict=True):
                each.setLevel(level)
