"""Builds of a feature cache in processes that may be killed."""

import multiprocessing
import os
import signal
from collections.abc import Callable
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


class LoggedReader:
    """Notes each image that it opens in a file that outlives the process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, path: Path, size: int) -> Tensor:
        with self.log.open("a") as file:
            file.write(f"{path}\n")
        return read_image(path, size)


def run(root: Path, cache_dir: Path, log: Path, die_at: int | None = None) -> None:
    """Build; with `die_at`, die by SIGKILL before the change of a file with that number."""
    if die_at is not None:
        remaining = [die_at]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if remaining[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining[0] -= 1
                return function(*args, **kwargs)

            return call

        for name in ("replace", "fsync", "unlink", "truncate"):
            setattr(os, name, counted(getattr(os, name)))
        store._append = counted(store._append)
        store._append = torn(store._append, remaining)
    build(root, cache_dir, LoggedReader(log))


def torn(append: Callable[..., Any], remaining: list[int]) -> Callable[..., Any]:
    """Die with half of the content written, if the next change is the last."""

    def call(path: Path, content: Any) -> None:
        if remaining[0] == 0:
            with path.open("ab") as file:
                file.write(content[: len(content) // 2])
        append(path, content)

    return call


def start(*args: Any) -> multiprocessing.process.BaseProcess:
    """Start `run` in a process that has imported everything before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["omiad.data", "omiad.features"])
    process = context.Process(target=run, args=args)
    process.start()
    return process
