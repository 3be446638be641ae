"""Anomaly maps of a memory bank: the distance of each patch to the nearest normal one.

    python tests/benchmarks/memory_bank.py --root real --backbone mobilenetv2_100 \
        --weights mobilenetv2_100.safetensors --output bank
    omiad evaluate --maps bank --data.root real --output bank/results.json

The features are those of the model: the same backbone, grid and normalisation per channel. The
bank holds patches drawn from the training images of all categories: like the model, it is not told
which product an image shows. Euclidean distance, upsampled as the model's residual is; no
re-weighting and no coreset, so it is plainer than PatchCore.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from omiad.data.images import read_image
from omiad.data.layouts import index_dataset
from omiad.features import FeatureExtractor

BATCH_SIZE = 8


def patches(extractor: FeatureExtractor, paths: list[Path]) -> Tensor:
    """Return the features of images as (B, h * w, C)."""
    images = torch.stack([read_image(path, extractor.image_size) for path in paths])
    return extractor(images).flatten(2).mT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbone", default="tf_efficientnet_b4.aa_in1k")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--num_patches", type=int, default=20_000, help="in the bank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    extractor = FeatureExtractor(arguments.backbone, weights=arguments.weights)
    samples = index_dataset(arguments.root).samples
    train = [s.image for s in samples if s.split == "train"]
    test = [s.image for s in samples if s.split == "test"]

    generator = torch.Generator().manual_seed(arguments.seed)
    per_image = -(-arguments.num_patches // len(train))
    drawn = []
    for start in track(range(0, len(train), BATCH_SIZE), description="bank"):
        for image in patches(extractor, train[start : start + BATCH_SIZE]):
            picked = torch.randperm(len(image), generator=generator)[:per_image]
            drawn.append(image[picked])
    bank = torch.cat(drawn)
    mean, std = bank.mean(0), bank.std(0).clamp(min=1e-6)
    bank = (bank - mean) / std

    size, grid = extractor.image_size, extractor.feature_size
    for start in track(range(0, len(test), BATCH_SIZE), description="maps"):
        paths = test[start : start + BATCH_SIZE]
        for path, image in zip(paths, patches(extractor, paths), strict=True):
            nearest = torch.cdist((image - mean) / std, bank).amin(1)
            residual = nearest.view(1, 1, grid, grid)
            pixels = F.interpolate(residual, (size, size), mode="bilinear", align_corners=True)
            target = arguments.output / path.relative_to(arguments.root).with_suffix(".npy")
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, pixels[0, 0].numpy())


if __name__ == "__main__":
    main()
