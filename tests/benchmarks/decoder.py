"""How close the pictures of a decoder come to normal photographs that it was not trained on.

The script prints, for each category, the PSNR in dB of three pictures against the photograph:
decoded from its features, decoded from their reconstruction, and the mean training image of the
category. --output saves some of them: photograph, features, reconstruction and mean image in one
row.

    python tests/benchmarks/decoder.py --ckpt_path runs/decoder/.../last.ckpt --root real
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from omiad import Detector
from omiad.data.images import read_image
from omiad.data.layouts import index_dataset

NUM_SHOWN = 4
"""Pictures of each category that --output saves."""


def save(path: Path, pictures: Sequence[Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = (torch.cat([picture[0] for picture in pictures], 2) * 255).round().to(torch.uint8)
    Image.fromarray(row.permute(1, 2, 0).numpy()).save(path)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--root", required=True)
    parser.add_argument("--output", help="folder for some pictures")
    options = parser.parse_args()
    detector = Detector.load(options.ckpt_path)
    decoder = detector.decoder
    if decoder is None:
        parser.error("no decoder in this checkpoint; give one that configs/decoder.yaml trained")
    size = detector.extractor.image_size
    sums: dict[str, list[Tensor]] = defaultdict(list)
    normal = [s for s in index_dataset(Path(options.root)).samples if not s.is_anomalous]
    for sample in normal:
        if sample.split == "train":
            sums[sample.category].append(read_image(sample.image, size) / 255)
    means = {category: torch.stack(images).mean(0) for category, images in sums.items()}
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for sample in normal:
        if sample.split == "test":
            pixels = read_image(sample.image, size)[None]
            features = detector.extractor(pixels)
            pictures = (
                decoder(detector.normalizer(features)),
                decoder(detector.reconstruct(features)),
                means[sample.category][None],
            )
            errors = [float((picture - pixels / 255).square().mean()) for picture in pictures]
            found[sample.category].append(-10 * np.log10(errors))
            if options.output and len(found[sample.category]) <= NUM_SHOWN:
                name = f"{sample.category}_{sample.image.stem}.png"
                save(Path(options.output) / name, [pixels / 255, *pictures])
    kinds = ("features", "reconstruction", "mean image")
    table = Table("category", "images", *kinds, title="PSNR in dB, normal test images")
    rows = {category: np.array(values) for category, values in sorted(found.items())}
    rows["all images"] = np.concatenate(list(rows.values()))
    for name, values in rows.items():
        table.add_row(name, str(len(values)), *(f"{x:.2f}" for x in values.mean(0)))
    Console().print(table)


if __name__ == "__main__":
    main()
