"""Speed of indexing, building and reading features against the best possible: `make bench-data`.

Each ratio comes from one run in which both sides take turns; figures are medians. No test asserts a
time.
"""

import json
import multiprocessing
import pickle
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from omiad.data.images import read_image
from omiad.data.layouts import realiad
from omiad.data.layouts.published import PUBLISHED
from omiad.data.loading import ResumableLoader, TrainingItems
from omiad.data.packing import PackedSamples
from omiad.data.sampling import EpochSampler
from omiad.features import Extraction, FeatureCache, FeatureExtractor
from omiad.features.reading import FeaturesOfFiles
from omiad.types import Sample

pytestmark = pytest.mark.benchmark

BACKBONES = {
    "EfficientNet-b4, 272 x 32 x 32": ("tf_efficientnet_b4.aa_in1k", 32, 32),
    "MobileNetV2, 168 x 16 x 16": ("mobilenetv2_100", 16, 96),
}
"""Backbone, feature size and number of images to build with."""

NUM_ROWS = 1000
BATCH_SIZE = 32


def say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def medians(calls: dict[str, Callable[[], Any]], rounds: int = 5) -> dict[str, float]:
    """Time calls in turn, after one turn that does not count; return their median seconds."""
    turns = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(turn[name] for turn in turns[1:]) for name in calls}


def named(folder: Path, count: int) -> list[Sample]:
    return [Sample(folder / f"{i}.jpg", (), "photo", "good", "train") for i in range(count)]


def photographs(folder: Path, count: int) -> list[Sample]:
    """Write JPEGs of 1024 x 1024 pixels with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    samples = named(folder, count)
    for sample in samples:
        coarse = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1024, 1024), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(sample.image, quality=90)
    return samples


@pytest.mark.parametrize("title", BACKBONES)
def test_a_build_against_the_bare_backbone(title: str, tmp_path: Path) -> None:
    name, feature_size, count = BACKBONES[title]
    samples = photographs(tmp_path, count)
    extractor = FeatureExtractor(name, weights="random", image_size=224, feature_size=feature_size)
    pixels = {sample.image: read_image(sample.image, 224) for sample in samples}
    stacked = torch.stack(list(pixels.values()))
    folders = (tmp_path / f"cache{i}" for i in range(100))

    def bare() -> None:
        for images in stacked.split(BATCH_SIZE):
            extractor(images).half()

    def build(read: Callable[[Path, int], Tensor]) -> None:
        FeatureCache(samples, Extraction(extractor, read), root=tmp_path, cache_dir=next(folders))

    took = medians(
        {
            "bare": bare,
            "store": lambda: build(lambda path, _: pixels[path]),
            "all": lambda: build(read_image),
            "decode": lambda: [read_image(sample.image, 224) for sample in samples],
        },
        rounds=3,
    )
    say(
        f"\n{title}: bare backbone from memory {count / took['bare']:.1f} images/s, build without "
        f"decoding {count / took['store']:.1f} ({took['bare'] / took['store']:.3f} of it), with "
        f"decoding of 1024 x 1024 JPEG {count / took['all']:.1f}; decoding is "
        f"{took['decode'] / took['all']:.1%} of a build"
    )


@pytest.fixture(scope="module")
def rows() -> Tensor:
    """Features of NUM_ROWS images of the default model: 557 MB."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NUM_ROWS, 272, 32, 32, generator=generator).half()


@dataclass(frozen=True)
class Given(Extraction):
    """Features that need no image."""

    rows: Tensor | None = None

    def batches(self, paths: Sequence[Path]) -> Iterator[FeaturesOfFiles]:
        yield self.rows, [""] * len(paths), [path.name for path in paths]


@pytest.fixture(scope="module")
def cache(rows: Tensor, tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    folder = tmp_path_factory.mktemp("cache")
    samples = named(folder, NUM_ROWS)
    for sample in samples:
        sample.image.touch()
    how = Given(FeatureExtractor(weights="random"), read_image, rows=rows)
    return FeatureCache(samples, how, root=folder, cache_dir=folder / "cache")


def test_random_reading_against_a_plain_mapped_tensor(
    rows: Tensor, cache: FeatureCache, tmp_path: Path
) -> None:
    path = tmp_path / "plain.bin"
    path.write_bytes(rows.numpy().tobytes())
    plain = torch.from_file(str(path), shared=False, size=rows.numel(), dtype=torch.half)
    plain = plain.view(rows.shape)
    order = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(0))

    def read(source: Any) -> None:
        for batch in order.split(BATCH_SIZE):
            torch.stack([source[i] for i in batch.tolist()])

    cache._is_checked.zero_()
    first = seconds(lambda: read(cache))  # compares every checksum
    took = medians({"store": lambda: read(cache), "plain": lambda: read(plain)})
    gigabytes = rows.numel() * 2 / 1e9
    say(
        f"\nrandom batches of {BATCH_SIZE}: store {NUM_ROWS / took['store']:.0f} images/s, "
        f"{gigabytes / took['store']:.2f} GB/s; plain mapped tensor "
        f"{NUM_ROWS / took['plain']:.0f} images/s, {gigabytes / took['plain']:.2f} GB/s; ratio "
        f"{took['plain'] / took['store']:.3f}. First pass, with checksums: "
        f"{NUM_ROWS / first:.0f} images/s"
    )


def test_a_loop_that_only_touches_its_batches(rows: Tensor, cache: FeatureCache) -> None:
    samples = PackedSamples(named(Path(), NUM_ROWS))
    category = torch.zeros(NUM_ROWS, dtype=torch.int64)
    steps: dict[str, list[float]] = {"store": [], "memory": []}

    def epoch(name: str, source: Any) -> None:
        items = TrainingItems(samples, category, 224, source)
        for batch in ResumableLoader(items, EpochSampler(NUM_ROWS, seed=0), batch_size=BATCH_SIZE):
            # Touches every value.
            steps[name].append(seconds(lambda batch=batch: int(batch[0].view(torch.int64).sum())))

    took = medians(
        {"store": lambda: epoch("store", cache), "memory": lambda: epoch("memory", rows)}
    )
    step = 1000 * statistics.median(steps["store"])
    say(
        f"\nepoch of {NUM_ROWS} images with a step of {step:.1f} ms: {took['store']:.3f} s from "
        f"the store, {took['memory']:.3f} s from tensors in memory; ratio "
        f"{took['store'] / took['memory']:.3f}"
    )


@pytest.fixture(scope="module")
def realiad_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The splits of Real-IAD in its size, without images: 30 categories of 5,035 views."""
    root = tmp_path_factory.mktemp("Real-IAD")
    for category in PUBLISHED["realiad"].categories:
        (root / "realiad_256" / category).mkdir(parents=True)
        entries: list[dict[str, str | None]] = []
        for i in range(5035):
            part, view = divmod(i, 5)
            bad = i >= 1215 and i % 9 < 4
            kind = "NG/AK" if bad else "OK"
            stem = f"{category}_{part:04}_{kind.replace('/', '_')}_C{view + 1}_20231013{i:06}"
            path = f"{kind}/S{part:04}/{stem}"
            files = {"image_path": f"{path}.jpg", "mask_path": f"{path}.png" if bad else None}
            entries.append({"category": category, "anomaly_class": "AK" if bad else "OK", **files})
        meta = {"prefix": f"{category}/", "normal_class": "OK"}
        file = root / "realiad_jsons" / "realiad_jsons" / f"{category}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        splits = {"train": entries[:1215], "test": entries[1215:]}
        file.write_text(json.dumps({"meta": meta, **splits}))
    return root


def _memory(name: str) -> int:
    """Memory of this process in bytes, as the line of that name in Linux's status says."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def _measure_index(root: Path, queue: Any) -> None:
    before = _memory("VmRSS")
    began = time.perf_counter()
    samples = realiad.index(root)
    took, grown = time.perf_counter() - began, _memory("VmHWM") - before
    began = time.perf_counter()
    packed = PackedSamples(samples)
    queue.put((len(samples), took, grown, time.perf_counter() - began, len(pickle.dumps(packed))))


def test_the_index_of_real_iad(realiad_root: Path) -> None:
    # A fresh process, since its peak of memory is measured.
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_measure_index, args=(realiad_root, queue))
    process.start()
    count, took, grown, packing, nbytes = queue.get()
    process.join()
    say(
        f"\nindex of {count} entries: {took:.2f} s, {grown / 1e6:.0f} MB; packed for workers in "
        f"{packing:.2f} s, {nbytes / 1e6:.0f} MB"
    )
