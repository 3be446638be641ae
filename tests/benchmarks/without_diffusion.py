"""Anomaly maps of a checkpoint whose reconstruction is replaced by the mean of the product.

    python tests/benchmarks/without_diffusion.py model.ckpt --root real --output without
    omiad evaluate --maps without --data.root real --image_size 448 --pool_size 16 --blur_sigma 4 \
        --output without/results.json

A control for the worth of the diffusion model: memory, distances and image score are the
checkpoint's; only the residual changes, to the features minus the mean of the product's normal
photographs at each position. The script is told the product of each photograph. The features are
those of configs/amdm_folder.yaml, from its cache, which the first call fills. Give --blur_sigma to
the script instead, and `omiad compare` takes the results together with those of `omiad test`.
"""

import argparse
from pathlib import Path

import torch
from shipped_features import ShippedFeatures

from omiad import Detector


@torch.no_grad()
def main() -> None:
    """Write the maps of the test photographs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache_dir", default="~/.cache/omiad")
    parser.add_argument("--alone", action="store_true", help="without the memory")
    parser.add_argument("--blur_sigma", type=float, default=0, help="in pixels of a map")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    detector = Detector.load(given.model)
    memory = detector.product_memory
    if memory is None:
        raise SystemExit(f"'{given.model}' has no memory of each product. Give another model.")
    if given.alone:
        memory.size = 0
    features = ShippedFeatures(given.root, given.cache_dir)
    for name in features.data.categories:
        normal = [
            detector.normalizer(features.stored("train", rows))
            for rows in features.batches("train", name)
        ]
        mean = torch.cat(normal).mean(0)
        for rows in features.batches("test", name):
            x_0 = detector.normalizer(features.stored("test", rows))
            shown = torch.full((len(rows),), detector.numbers[name])
            distances = detector.distance(x_0, x_0 - mean, shown)
            for row, distance in zip(rows, distances, strict=True):
                features.write_map(given.output, row, distance[0], given.blur_sigma)


if __name__ == "__main__":
    main()
