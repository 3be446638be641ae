"""How long does `omiad predict` take for many photographs, against the bare backbone?

    python tests/benchmarks/predicting.py model.ckpt real out --number 1000 --num_workers 2

Fills a folder with copies of the test photographs of the model's products, again and again up to
--number, and decides about them. The bare backbone sees the same photographs one by one,
decoded beforehand. Seconds of the processor do not depend on other work on the machine.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import torch

from omiad import Detector
from omiad.data.layouts import index_dataset
from omiad.photographs import read_image
from omiad.prediction.command import predict

NUM_OF_BACKBONE = 40
"""Photographs that the bare backbone sees; their time is scaled to --number."""


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the clock, and of the processor, that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    """Time both, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for argument in ("ckpt_path", "root", "out"):
        parser.add_argument(argument, type=Path)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--num_workers", type=int, nargs="+", default=[2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    detector = Detector.load(given.ckpt_path)
    extractor, known = detector.extractor, detector.products.names
    tests = [s for s in index_dataset(given.root).samples if s.split == "test"]
    paths = [sample.image for sample in tests if sample.category in known]
    copies = given.out / "photographs"
    copies.mkdir(parents=True)
    for i, path in enumerate(islice(cycle(paths), given.number)):
        shutil.copy(path, copies / f"{i:05}{path.suffix}")
    some = [*islice(cycle(paths), NUM_OF_BACKBONE)]
    images = torch.stack([read_image(path, extractor.image_size) for path in some])
    with torch.inference_mode():
        found = seconds(lambda: [extractor(part) for part in torch.split(images, 1)])
    bare = [given.number / NUM_OF_BACKBONE * each for each in found]
    print(f"bare backbone: {bare[0]:.0f} s, {bare[1]:.0f} s of the processor", flush=True)
    for workers in given.num_workers:
        made = given.out / f"predictions_{workers}"

        def run(made: Path = made, workers: int = workers) -> None:
            folders = {"output": str(made), "num_workers": workers}
            predict(str(given.ckpt_path), [str(copies)], device="cpu", **folders)  # type: ignore[arg-type]

        clock, processor = seconds(run)
        ratio = processor / bare[1]
        print(
            f"omiad predict, {workers} workers: {clock:.0f} s, {processor:.0f} s of the processor, "
            f"{ratio:.2f} times the bare backbone",
            flush=True,
        )


if __name__ == "__main__":
    main()
