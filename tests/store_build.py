"""Builds of a feature cache in processes that may be killed."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omiad.data.images import read_image
from omiad.data.layouts.mvtec import index
from omiad.features import Extraction, FeatureCache, FeatureExtractor, store

BATCH_SIZE = 3


def build(root: Path, cache_dir: Path, read: Callable[[Path, int], Tensor]) -> FeatureCache:
    """Build a cache of the training images of a data set."""
    torch.set_num_threads(1)
    samples = [s for s in index(root) if s.split == "train"]
    extractor = FeatureExtractor(
        "test_efficientnet", weights="random", image_size=32, feature_size=4, stages=(0, 1)
    )
    how = Extraction(extractor, read, batch_size=BATCH_SIZE)
    return FeatureCache(samples, how, root=root, cache_dir=cache_dir)


def logged_read(log: Path, path: Path, size: int) -> Tensor:
    """Read an image, and note it in a file that outlives the process."""
    with log.open("a") as file:
        file.write(f"{path}\n")
    return read_image(path, size)


def run(root: Path, cache_dir: Path, log: Path, die_at: int | None = None) -> None:
    """Build; with `die_at`, die by SIGKILL before the change of a file with that number."""
    if die_at is not None:
        changes = iter(range(die_at))

        def counted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if next(changes, None) is None:
                if function is append:  # half of the content is written
                    path, content = args
                    with path.open("ab") as file:
                        file.write(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        append = store._append
        store._append = partial(counted, append)
        for name in ("replace", "fsync", "unlink", "truncate"):
            setattr(os, name, partial(counted, getattr(os, name)))
    build(root, cache_dir, partial(logged_read, log))


def start(*args: Any) -> multiprocessing.process.BaseProcess:
    """Start `run` in a process that has imported everything before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["omiad.data", "omiad.features"])
    process = context.Process(target=run, args=args)
    process.start()
    return process
