"""Anomaly maps of methods without training, on the features of configs/amdm_folder.yaml.

    python tests/benchmarks/simple_peers.py --method bank --root real --output bank
    omiad evaluate --maps bank --data.root real --image_size 448 --pool_size 16 --blur_sigma 4 \
        --output bank/results.json

Give --blur_sigma to the script instead, and the results can be compared with those of `omiad test`,
whose maps are blurred already.

| method | a cell's distance |
|---|---|
| bank | Euclidean, to the nearest of 500 random patches of each product, all in one bank |
| product_bank | the same patches, those of the photograph's own product alone |
| gaussian | Mahalanobis, from mean and covariance of the product's cells at that position |

All search the grid of 56 x 56 with each channel standardised. `product_bank` and `gaussian` are
told the product of a test photograph, which the model recognises by itself. `gaussian` is PaDiM
(Defard et al. 2021): 100 random channels, and 0.01 added to the variances.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from shipped_features import ShippedFeatures
from torch import Tensor

NUM_CHANNELS = 100
RIDGE = 0.01
METHODS = ("bank", "product_bank", "gaussian")

Distance = Callable[[Tensor], Tensor]
"""From features (B, C, h, w) to distances (B, h, w)."""


def patches(x: Tensor) -> Tensor:
    """Return the cells (B * h * w, C) of features (B, C, h, w)."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def bank_of(features: ShippedFeatures, name: str, count: int, generator: torch.Generator) -> Tensor:
    """Return random patches (count, C) of the training photographs of a product."""
    per_image = -(-count // features.category("train").count(name))
    drawn = []
    for rows in features.batches("train", name):
        for image in features.read("train", rows):
            cells = patches(image[None])
            drawn.append(cells[torch.randperm(len(cells), generator=generator)[:per_image]])
    found = torch.cat(drawn)
    return found[torch.randperm(len(found), generator=generator)[:count]]


def to_nearest(bank: Tensor) -> Distance:
    """Return the distance of each cell to the nearest patch of a bank."""
    lengths = bank.square().sum(1)

    def distance(x: Tensor) -> Tensor:
        nearest = [
            (torch.addmm(lengths, image, bank.T, alpha=-2).amin(1) + image.square().sum(1))
            for image in patches(x).view(len(x), -1, x.shape[1])
        ]
        return torch.stack(nearest).clamp(min=0).sqrt().view(len(x), *x.shape[2:])

    return distance


def from_gaussian(features: ShippedFeatures, name: str, channels: Tensor) -> Distance:
    """Return the Mahalanobis distance of each cell from the normal ones at its position."""
    batches = features.batches("train", name)
    x = torch.cat([features.read("train", rows)[:, channels] for rows in batches])
    cells = x.flatten(2).permute(2, 0, 1)  # (positions, photographs, channels)
    mean = cells.mean(1, keepdim=True)
    deviation = cells - mean
    covariance = deviation.mT @ deviation / (cells.shape[1] - 1)
    factor = torch.linalg.cholesky(covariance + RIDGE * torch.eye(len(channels)))

    def distance(x: Tensor) -> Tensor:
        given = x[:, channels].flatten(2).permute(2, 1, 0) - mean.mT
        whitened = torch.linalg.solve_triangular(factor, given, upper=False)
        return whitened.square().sum(1).sqrt().T.reshape(len(x), *x.shape[2:])

    return distance


@torch.no_grad()
def main() -> None:
    """Fit each product and write the maps of its test photographs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache_dir", default="~/.cache/omiad")
    parser.add_argument("--num_patches", type=int, default=500, help="of each product")
    parser.add_argument("--blur_sigma", type=float, default=0, help="in pixels of a map")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    features = ShippedFeatures(given.root, given.cache_dir)
    generator = torch.Generator().manual_seed(given.seed)
    names = features.data.categories
    if given.method == "gaussian":
        num_channels = features.read("train", [0]).shape[1]
        channels = torch.randperm(num_channels, generator=generator)[:NUM_CHANNELS]
    else:
        banks = {name: bank_of(features, name, given.num_patches, generator) for name in names}
    for name in names:
        if given.method == "gaussian":
            distance = from_gaussian(features, name, channels)
        elif given.method == "product_bank":
            distance = to_nearest(banks[name])
        else:
            distance = to_nearest(torch.cat([*banks.values()]))
        for rows in features.batches("test", name):
            for row, one in zip(rows, distance(features.read("test", rows)), strict=True):
                features.write_map(given.output, row, one, given.blur_sigma)


if __name__ == "__main__":
    main()
