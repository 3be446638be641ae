"""The features of configs/amdm_folder.yaml, from its cache, and the maps of a peer that reads them.

`simple_peers.py` and `uniad_peer.py` share them. The cache is filled by the first call.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.progress import track
from torch import Tensor

from omiad import FeatureDataModule
from omiad.configurations import find_configuration
from omiad.data.datamodule import Split
from omiad.resampling import resample
from omiad.scoring import gaussian_blur

BATCH_SIZE = 16


class ShippedFeatures:
    """Features of photographs on the fine grid, (168, 56, 56), each channel standardised.

    Args:
        root: Folder of the data set.
        cache_dir: Folder of the feature caches.
    """

    def __init__(self, root: Path, cache_dir: str) -> None:
        settings = yaml.safe_load(find_configuration("amdm_folder").read_text())["data"]
        self.data = FeatureDataModule(str(root), cache="all", cache_dir=cache_dir, **settings)
        self.image_size: int = settings["image_size"]
        statistics = self.data.statistics
        self.mean = statistics.mean.float().view(1, -1, 1, 1)
        self.std = statistics.std.float().view(1, -1, 1, 1)

    def category(self, split: Split) -> list[str]:
        """Return the category of each photograph of a split."""
        return [sample.category for sample in self.data.samples(split)]

    def read(self, split: Split, rows: Iterable[int]) -> Tensor:
        """Return the features (B, C, h, w) of photographs of a split."""
        x = (self.stored(split, rows) - self.mean) / self.std
        return torch.cat(self.data.extractor.folding.unfolded(x), dim=1)

    def stored(self, split: Split, rows: Iterable[int]) -> Tensor:
        """Return the features of photographs of a split as the cache has them, folded."""
        features = self.data.features(split)
        return torch.stack([features[row] for row in rows]).float()

    def write_map(self, output: Path, row: int, distance: Tensor, blur_sigma: float = 0) -> None:
        """Write the map of a test photograph, from distances (h, w), at its path below the root."""
        pixels = resample(distance[None, None].float(), self.image_size, corners=True)[0, 0]
        pixels = gaussian_blur(pixels[None], blur_sigma, edges="reflect")[0]
        image = self.data.samples("test")[row].image
        target = output / image.relative_to(self.data.root).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, pixels.numpy())

    def batches(self, split: Split, name: str | None = None) -> Iterable[list[int]]:
        """Return the rows of a split, or of a category in it, in batches."""
        rows = [row for row, each in enumerate(self.category(split)) if name in (None, each)]
        starts = range(0, len(rows), BATCH_SIZE)
        return track([rows[i : i + BATCH_SIZE] for i in starts], f"{split} {name or ''}")
