"""What a grid of tiles finds, and what it costs, where defects are small.

    python tests/benchmarks/large_photographs.py write ROOT
    python tests/benchmarks/large_photographs.py measure ROOT 1x1 2x2 4x4

`write` draws perforated, brushed metal in the layout of MVTec AD, 1,792 pixels a side, with defects
of 10 pixels. `measure` trains, tests and times a model with a grid, and prints a row of a table. It
takes any data set in a layout that omiad knows. The peak memory is that of all grids so far.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from omiad import Detector
from omiad.configurations import find_configuration
from omiad.data.layouts import index_dataset
from omiad.lightning_cli import OmiadCLI
from omiad.photographs import read_image

SIDE, DEFECT = 1792, 10
COUNTS = {"train/good": 16, "test/good": 12, "test/spot": 12}
STEPS = 20


def write(root: Path) -> None:
    for number, (folder, count) in enumerate(COUNTS.items()):
        (root / "plate" / folder).mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng([number, i])
            pixels, mask = _photograph(rng, is_defective=folder == "test/spot")
            Image.fromarray(pixels).save(root / "plate" / folder / f"{i:03}.jpg", quality=95)
            if mask.any():
                truth = root / "plate" / "ground_truth" / "spot" / f"{i:03}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(truth)


def _photograph(rng: np.random.Generator, *, is_defective: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph and its mask; the defect is a spot of dirt, a little darker."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    shift = rng.uniform(0, 128, 2)
    holes = np.hypot((x + shift[0]) % 128 - 64, (y + shift[1]) % 128 - 64) - 24
    brushed = ndimage.gaussian_filter1d(rng.normal(0, 1, (SIDE, SIDE)), 12, axis=1)
    grey = (150 + 30 * brushed) * np.clip(0.3 + holes / 4, 0.3, 1) * rng.uniform(0.92, 1.05)
    mask = np.zeros((SIDE, SIDE), bool)
    if is_defective:
        free = np.argwhere(holes[64:-64, 64:-64] > DEFECT) + 64
        top, left = free[rng.integers(len(free))]
        mask = np.hypot(x - left, y - top) < DEFECT / 2
        grey = np.where(ndimage.gaussian_filter(mask.astype(np.float32), 1) > 0.5, 70, grey)
    grey = grey + rng.normal(0, 3, grey.shape)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2), mask


def measure(root: Path, rows: int, columns: int) -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    run, test = folder / "run", folder / "test"
    start = time.process_time()
    OmiadCLI([
        *("fit", f"--config={find_configuration('amdm_folder')}", f"--run_dir={run}"),
        *(f"--data.root={root}", f"--data.tiles=[{rows},{columns}]"),
        *("--data.backbone=tf_efficientnet_lite0", "--data.weights=package"),
        *("--data.image_size=128", "--data.feature_size=16", f"--data.cache_dir={folder}/cache"),
        *("--model.scoring.pool_size=8", "--model.scoring.blur_sigma=2"),
        *("--model.scoring.memory_size=1000", f"--trainer.max_steps={STEPS}"),
        *("--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"),
    ])  # fmt: skip
    fitted = time.process_time() - start
    checkpoint = run / "checkpoints" / "last.ckpt"
    OmiadCLI(["test", f"--run_dir={test}", f"--ckpt_path={checkpoint}",
              "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"])  # fmt: skip
    mean = json.loads((test / "results.json").read_text())["mean"]
    detector = Detector.load(checkpoint)
    extractor = detector.extractor
    paths = [s.image for s in index_dataset(root, "auto").samples if s.split == "test"][:9]
    times = []
    for path in paths:
        start = time.process_time()
        image = read_image(path, extractor.image_size, tiles=extractor.tiling.tiles)
        detector(image[None])
        times.append(time.process_time() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures = [mean[name] for name in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")]
    shown = " | ".join("-" if x is None else f"{100 * x:.1f}" for x in figures)
    seconds = float(np.median(times))
    sys.stdout.write(
        f"| [{rows}, {columns}] | {shown} | {seconds:.2f} s | {fitted:.0f} s | {memory:.1f} GiB |\n"
    )


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        for grid in sys.argv[3:]:
            measure(Path(sys.argv[2]), *map(int, grid.split("x")))
