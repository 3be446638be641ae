"""Anomaly maps of a memory bank: the distance of each patch to the nearest normal one.

    python tests/benchmarks/memory_bank.py --root real --backbone mobilenetv2_100 \
        --weights mobilenetv2_100.safetensors --output bank
    omiad evaluate --maps bank --data.root real --output bank/results.json

As in PatchCore, on a grid of 14 and from four categories alone:

    python tests/benchmarks/memory_bank.py --root real --backbone mobilenetv2_100 \
        --weights mobilenetv2_100.safetensors --feature_size 14 --grid patchcore --raw \
        --num_patches 30000 --categories cookie hazelnut_toy magnetic_tile pcb --output bank

With `--categories` the maps of the other categories are written too, but mean nothing. The options
`--image_size 448 --feature_size 28 --grid patchcore --stages 1 2 3` are those of
configs/amdm_folder.yaml.

The features are those of the model: the same backbone, stages and, unless `--raw`, normalisation
per channel. The bank holds patches drawn from the training images of all categories: like the
model, it does not know which product an image shows. Euclidean distance, upsampled as the model's
residual is; no re-weighting and no coreset, so it is plainer than PatchCore.
"""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from omiad.data.images import read_image
from omiad.data.layouts import index_dataset
from omiad.features import FeatureExtractor
from omiad.features.extractor import Grid

BATCH_SIZE = 8
BANK_ROWS = 8192
"""Rows of the bank compared at once: 8 images of 32 x 32 patches then take 268 MB."""


def patches(extractor: FeatureExtractor, paths: list[Path]) -> Tensor:
    """Return the features of images as (B, h * w, C)."""
    images = torch.stack([read_image(path, extractor.image_size) for path in paths])
    return extractor(images).flatten(2).mT


def nearest(x: Tensor, bank: Tensor) -> Tensor:
    """Return the distance (N,) of each row of x (N, C) to the nearest of the bank (M, C)."""
    return torch.stack([torch.cdist(x, rows).amin(1) for rows in bank.split(BANK_ROWS)]).amin(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbone", default="tf_efficientnet_b4.aa_in1k")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--feature_size", type=int, default=32, help="side of the grid of patches")
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--grid", default="uniad", choices=get_args(Grid))
    parser.add_argument("--num_patches", type=int, default=20_000, help="in the bank, at least")
    parser.add_argument("--raw", action="store_true", help="without scaling each channel")
    parser.add_argument("--categories", nargs="+", help="whose images fill the bank (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the patches drawn")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    names = ("backbone", "weights", "image_size", "feature_size", "stages", "grid")
    extractor = FeatureExtractor(**{name: getattr(arguments, name) for name in names})
    samples = index_dataset(arguments.root).samples
    chosen = set(arguments.categories or (s.category for s in samples))
    train = [s.image for s in samples if s.split == "train" and s.category in chosen]
    test = [s.image for s in samples if s.split == "test"]

    generator = torch.Generator().manual_seed(arguments.seed)
    per_image = -(-arguments.num_patches // len(train))
    drawn = []
    for start in track(range(0, len(train), BATCH_SIZE), description="bank"):
        for image in patches(extractor, train[start : start + BATCH_SIZE]):
            picked = torch.randperm(len(image), generator=generator)[:per_image]
            drawn.append(image[picked])
    bank = torch.cat(drawn)
    mean = bank.mean(0)
    std = torch.ones_like(mean) if arguments.raw else bank.std(0).clamp(min=1e-6)
    bank = (bank - mean) / std
    print(f"{len(bank)} patches of {len(train)} images")

    size, grid = extractor.image_size, extractor.feature_size
    for start in track(range(0, len(test), BATCH_SIZE), description="maps"):
        paths = test[start : start + BATCH_SIZE]
        images = (patches(extractor, paths) - mean) / std
        residual = nearest(images.flatten(0, 1), bank).view(-1, 1, grid, grid)
        pixels = F.interpolate(residual, (size, size), mode="bilinear", align_corners=True)
        for path, one in zip(paths, pixels, strict=True):
            target = arguments.output / path.relative_to(arguments.root).with_suffix(".npy")
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, one[0].numpy())


if __name__ == "__main__":
    main()
