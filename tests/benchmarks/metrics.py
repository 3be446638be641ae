"""Speed, memory and error of the pixel figures, against scikit-learn and adeval.

    python tests/benchmarks/metrics.py                  # all, each in its own process
    python tests/benchmarks/metrics.py --method omiad   # one of them
    python tests/benchmarks/metrics.py --passes 100     # bounds after one pass and after two

The maps are synthetic, as many pixels as in the test set of MVTec AD. Seconds are processor time on
one thread, without making the maps. adeval (pip install adeval opencv-python-headless) is left out
if it is not installed. `--passes N` counts N images of 256 x 256 pixels of every kind of score in
`KINDS`, with large defects and with three of 6 pixels.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `references`

from references import sklearn_figures, slow_au_pro

from omiad.metrics import AnomalyMetrics, PixelDetection
from omiad.metrics.detection import PIXEL_METRICS
from omiad.protocols import UNIAD
from omiad.results import write_results
from omiad.types import Labels, Prediction, Sample

NUM_CATEGORIES, NUM_IMAGES, SIZE, GRID = 15, 115, 224, 28
BATCH_SIZE = 32
REAL_IAD = (30, 114_585)
"""Categories and test images of Real-IAD."""

Figures = dict[str, float]


def category(seed: int, num_images: int = NUM_IMAGES) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps and masks (N, size, size): noise on a grid, raised where images are defective."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    masks = torch.zeros(num_images, SIZE, SIZE, dtype=torch.bool)
    for mask in masks[: int(0.73 * num_images)]:
        for _ in range(rng.integers(1, 4)):
            height, width = rng.integers(4, 40, 2)
            top, left = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
            mask[top : top + height, left : left + width] = True
    shape = (num_images, 1, GRID, GRID)
    noise = 5 * torch.exp(0.35 * torch.randn(shape, generator=generator))
    raised = F.avg_pool2d(F.interpolate(masks[:, None].float(), (GRID, GRID), mode="area"), 3, 1, 1)
    strength = 3 * torch.rand(num_images, 1, 1, 1, generator=generator)
    grid = noise * (1 + strength * raised)
    return F.interpolate(grid, (SIZE, SIZE), mode="bilinear", align_corners=True)[:, 0], masks


def run_omiad(maps: torch.Tensor, masks: torch.Tensor) -> tuple[Figures, int, float]:
    metric = PixelDetection()
    for rows in torch.arange(len(maps)).split(BATCH_SIZE):
        metric.update(maps[rows], masks[rows], rows)
    figures = metric.compute()
    state = sum(part.nbytes for part in metric.bins)
    bound = max(interval.bound for interval in figures.values())
    return {name: float(figures[name].value) for name in PIXEL_METRICS}, state, bound


def run_sklearn(maps: torch.Tensor, masks: torch.Tensor) -> tuple[Figures, int, float]:
    figures = sklearn_figures(maps.numpy().ravel(), masks.numpy().ravel())
    aupro = slow_au_pro(maps.numpy(), masks.numpy(), 0.3)  # each score is a threshold
    return {f"pixel_{name}": float(x) for name, x in figures.items()} | {"aupro": aupro}, 0, 0.0


def run_adeval(maps: torch.Tensor, masks: torch.Tensor) -> tuple[Figures, int, float]:
    np.trapz = getattr(np, "trapezoid", None) or np.trapz  # adeval 1.1 needs the old name
    from adeval.mem_effic import auroc_aupr_aupro

    figures = auroc_aupr_aupro(maps.numpy(), masks.numpy().astype(np.uint8), nstrips=1000)
    return dict(zip(("pixel_auroc", "pixel_ap", "aupro"), figures, strict=True)), 0, 0.0


METHODS: dict[str, Callable[..., tuple[Figures, int, float]]] = {
    "omiad": run_omiad,
    "sklearn": run_sklearn,
    "adeval": run_adeval,
}


def measure(method: str) -> dict[str, object]:
    """Score all categories in a process that does nothing else, to measure peak memory."""
    seconds, state, bound, figures = 0.0, 0, 0.0, []
    data = [category(seed) for seed in range(NUM_CATEGORIES)]
    METHODS[method](*(x[:2] for x in data[0]))  # imports
    before = peak_mb()
    for maps, masks in data:
        start = time.process_time()
        row, size, error = METHODS[method](maps, masks)
        seconds += time.process_time() - start
        state, bound = state + size, max(bound, error)
        figures.append(row)
    return {
        "seconds": seconds,
        "peak_mb": peak_mb() - before,
        "state_mb": state / 2**20,
        "bound": bound,
        "figures": figures,
    }


def measure_stream(fraction: float) -> dict[str, object]:
    """Stream Real-IAD's test images, made on the fly, up to results.json, and watch the memory."""
    num_categories, num_images = REAL_IAD
    names = [f"category_{i:02}" for i in range(num_categories)]
    num_batches = -(-int(fraction * num_images / num_categories) // BATCH_SIZE)
    metrics = AnomalyMetrics(names)
    maps, masks = category(0, BATCH_SIZE)
    is_known = torch.ones(BATCH_SIZE, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    start, seconds = rss_mb(), 0.0
    memory = np.zeros((num_categories, num_batches))  # after each batch of each category
    rows = iter(torch.arange(BATCH_SIZE * memory.size).split(BATCH_SIZE))
    for number, name in enumerate(names):
        for batch in range(num_batches):
            change = 0.8 + 0.4 * torch.rand(BATCH_SIZE, 1, 1, generator=generator)
            prediction = Prediction(change.flatten(), maps * change)
            none = torch.zeros(BATCH_SIZE).long()
            labels = Labels(masks.flatten(1).any(1), masks, is_known, next(rows), none)
            before = time.process_time()
            metrics.update(prediction, labels, [name] * BATCH_SIZE)
            seconds += time.process_time() - before
            memory[number, batch] = rss_mb() - start
    before = time.process_time()
    results = metrics.compute()
    computed = time.process_time()
    streamed_mb = peak_mb() - start
    images = [
        Sample(Path(f"{i:06}.png"), (), names[0], "good", "test", f"{i // 5}", i % 5)
        for i in range(BATCH_SIZE * memory.size)
    ]
    about = {"root": Path(), "dataset": "synthetic", "device": torch.device("cpu")}
    with tempfile.TemporaryDirectory() as folder:
        write_results(Path(folder) / "results.json", results, images, protocol=UNIAD, **about)
    ends = memory[:, num_batches // 2 :]
    slopes = np.polyfit(BATCH_SIZE * np.arange(ends.shape[1]), ends.T, 1)[0]
    return {
        "images": len(images),
        "seconds": seconds,
        "compute_seconds": computed - before,
        "write_seconds": time.process_time() - computed,
        "streamed_mb": streamed_mb,
        "peak_mb": peak_mb() - start,
        "kb_per_image_in_the_second_half": 1024 * float(np.median(slopes)),
        "mb_per_category": (memory[-1, -1] - memory[0, -1]) / (num_categories - 1),
        "bound": results.bound,
    }


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]] = {
    "residual norms": lambda z, m, _: np.exp(0.35 * z + m),
    "squared distances": lambda z, m, _: z**2 * np.exp(2 * m),
    "heavy tails": lambda z, m, _: np.exp(10 * (z + m)),
    "1 - cosine": lambda z, m, _: 1 - np.cos(0.01 * np.abs(z + 2 * m)),
    "signed": lambda z, m, _: z + 1.5 * m,
    "narrow band": lambda z, m, _: 40 * (1 + 1e-3 * (z + m)),
    "half precision": lambda z, m, _: np.exp(0.35 * z + m).astype(np.float16),
    "softmax": lambda z, m, _: 1 / (1 + np.exp(14 - 6 * z - 20 * m)),
    "sharp softmax": lambda z, m, _: 1 / (1 + np.exp(40 - 20 * z - 60 * m)),
    "nine tenths zero": lambda z, m, rng: (rng.random(z.shape) < 0.1) * np.exp(3 * z + 2 * m),
}
"""Scores from standard normal noise and masks."""


def measure_passes(num_images: int) -> None:
    """Print the largest bound after one pass and after two, for each kind of score."""
    print(f"{'':20}{'defects':>9}{'one pass':>12}  {'figure':28}{'two passes':>12}")
    for kind, make in KINDS.items():
        for size in ("large", "tiny"):
            metric, bounds, worst = PixelDetection(), [], ""
            for _ in range(2):
                for i in range(num_images):
                    rng = np.random.default_rng(i)
                    mask = np.zeros((1, 256, 256), bool)
                    if size == "large" and i % 2:
                        top, left, height, width = rng.integers(4, 60, 4)
                        mask[0, top : top + height, left : left + width] = True
                    elif size == "tiny" and i < 3:
                        mask[0, 100 : 100 + 2, 50 : 50 + 3] = True
                    scores = make(rng.standard_normal(mask.shape), mask, rng).astype(np.float32)
                    rows = torch.tensor([i])
                    metric.update(torch.from_numpy(scores), torch.from_numpy(mask), rows)
                figures = metric.compute()
                bounds.append(max(figure.bound for figure in figures.values()))
                worst = worst or max(figures, key=lambda name: figures[name].bound)
                if not (len(bounds) < 2 and metric.refine()):
                    break
            second = f"{bounds[1]:.1e}" if len(bounds) > 1 else "-"
            print(f"{kind:20}{size:>9}{bounds[0]:12.1e}  {worst:28}{second:>12}", flush=True)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rss_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def run_alone(*options: str) -> dict[str, Any]:
    """Run this file in its own process and return what it prints last."""
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)  # noqa: PLW1510
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def report(fraction: float) -> None:
    """Print how the methods compare, and what Real-IAD's scale costs."""
    results = {method: run_alone("--method", method) for method in METHODS}
    ours, exact = results["omiad"], results["sklearn"]["figures"]
    pixels = NUM_CATEGORIES * NUM_IMAGES * SIZE**2
    print(f"{platform.machine()} CPU, one thread; {pixels / 1e6:.0f} million pixels with masks")
    print(f"{'':10}{'seconds':>10}{'ratio':>8}{'peak MB':>10}{'largest error':>16}")
    for method, result in results.items():
        if "error" in result:
            print(f"{method}: left out ({result['error']})")
            continue
        rows = zip(result["figures"], exact, strict=True)
        error = max(abs(row[name] - truth[name]) for row, truth in rows for name in row)
        ratio = result["seconds"] / ours["seconds"]
        print(
            f"{method:10}{result['seconds']:10.1f}{ratio:8.1f}{result['peak_mb']:10.0f}{error:16.1e}"
        )
    print(f"omiad: state {ours['state_mb']:.0f} MB, stated bound {ours['bound']:.1e}")
    print(f"Real-IAD's scale: {json.dumps(run_alone('--stream', str(fraction)))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--passes", type=int, metavar="IMAGES")
    parser.add_argument("--stream", type=float, metavar="FRACTION")
    parser.add_argument("--fraction", type=float, default=0.2, help="of Real-IAD's test images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.method:
        print(json.dumps(measure(arguments.method)))
    elif arguments.passes:
        measure_passes(arguments.passes)
    elif arguments.stream:
        print(json.dumps(measure_stream(arguments.stream)))
    else:
        report(arguments.fraction)


if __name__ == "__main__":
    main()
