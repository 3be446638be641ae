"""Milliseconds for each part of a checkpoint's score of an image.

    python tests/benchmarks/latency.py --ckpt_path runs/omiad/version_0/checkpoints/last.ckpt

Each figure is a median over repeated runs on an image of noise, on which the time hardly depends.
"""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from omiad import Detector

REPEATS = 21


def milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the median time of a call, without the first call."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    times = []
    for _ in range(REPEATS + 1):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    detector = Detector.load(arguments.ckpt_path, device=device)
    size, batch = detector.extractor.image_size, arguments.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=generator)
    images = images.to(device)
    rows = {}
    with torch.inference_mode():
        features = detector.extractor(images)
        steps, size_of_memory = detector.num_steps, detector.scoring.memory_size
        rows["backbone"] = milliseconds(lambda: detector.extractor(images), device)
        whole = milliseconds(lambda: detector.score_features(features), device)
        detector.scoring = replace(detector.scoring, memory_size=0)
        plain = milliseconds(lambda: detector.score_features(features), device)
        rows[f"{steps} step(s) and map"] = plain
        if size_of_memory:
            rows[f"memory of {len(detector.memory.patches)} patches"] = whole - plain
        rows["all"] = rows["backbone"] + whole
        detector.num_steps = 10
        ten = milliseconds(lambda: detector.score_features(features), device)
        rows["ten steps of DDIM and map, instead"] = ten
    threads = f", {torch.get_num_threads()} thread(s)" if device.type == "cpu" else ""
    print(f"{platform.machine()}, {device}{threads}; batch {batch}, {size} x {size}; ms per image")
    for name, value in rows.items():
        print(f"{name:40}{value / batch:8.1f}")


if __name__ == "__main__":
    main()
