"""Builds of a feature store in processes of their own, to be killed."""

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
from omiad.features import Build, FeatureCache, FeatureExtractor, building, shards

BATCH_SIZE = 3
IMAGES_PER_SHARD = 5


def build(root: Path, cache_dir: Path, read: Callable[[Path, int], Tensor]) -> FeatureCache:
    """Build small shards of the training images of a data set."""
    torch.set_num_threads(1)
    samples = [s for s in index(root) if s.split == "train"]
    extractor = FeatureExtractor(
        "test_efficientnet", weights="random", image_size=32, feature_size=4, stages=(0, 1)
    )
    how = Build(extractor, read, batch_size=BATCH_SIZE, progress=False)
    return FeatureCache.open_or_build(samples, how, root=root, cache_dir=cache_dir)


class LoggedReader:
    """Notes each image it opens in a file that outlives the process."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self, path: Path, size: int) -> Tensor:
        with self.log.open("a") as file:
            file.write(f"{path}\n")
        return read_image(path, size)


def run(root: Path, cache_dir: Path, log: Path, die_at: int | None = None) -> None:
    """Build; with `die_at`, die by SIGKILL in front of so many-th change of a file."""
    if die_at is not None:
        remaining = [die_at]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if remaining[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining[0] -= 1
                return function(*args, **kwargs)

            return call

        for module, names in (
            (os, ("replace", "fsync", "unlink", "truncate")),
            (shards, ("write_index", "recover", "content_of")),
        ):
            for name in names:
                setattr(module, name, counted(getattr(module, name)))
        building.recover = shards.recover
    shards.SHARD_BYTES = IMAGES_PER_SHARD * 2 * 40 * 4 * 4
    build(root, cache_dir, LoggedReader(log))


def start(*args: Any) -> multiprocessing.process.BaseProcess:
    """Start `run` in a process that has imported everything before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["omiad.data", "omiad.features"])
    process = context.Process(target=run, args=args)
    process.start()
    return process
