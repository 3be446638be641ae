"""Anomaly maps of a published learned method, trained by anomalib as one model of all categories.

    pip install anomalib==2.7.0  # in an environment of its own, beside omiad
    python tests/benchmarks/learned_peer.py --model Patchflow --root real \
        --backbone mobilenetv2_100 --weights mobilenetv2_100.safetensors --map_size 448 \
        --output patchflow
    omiad evaluate --maps patchflow --data.root real --image_size 448 --pool_size 32 \
        --output patchflow/results.json

Model, loss, optimiser and anomaly map are anomalib's with its defaults; only the backbone, the
image size and the training images of all categories together are ours. Of its learned methods
these take any network of timm; ReverseDistillation, Fastflow and Cfa do not. The weights are passed
as a folder of timm's own kind, `local-dir:`, so that nothing of anomalib is changed and nothing is
downloaded. 35 epochs of 549 images show as many images as 1,200 steps of 16 of stage 1 do; the last
epoch is scored, and nothing was chosen on test images. At 224 Patchflow's own grid is 28 x 28 with
averages over 3 x 3, as that of configs/amdm_folder.yaml is; `--map_size` brings the maps to the
size they are compared at.

Seconds of one thread for a training image, in batches of 16 at 224 x 224 on a busy x86-64 machine:
Patchflow 0.06, Stfpm 0.1, Supersimplenet 0.5.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lightning
import numpy as np
import torch
from anomalib import models
from anomalib.data import ImageBatch
from anomalib.models import AnomalibModule
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset

from omiad.data.images import read_image
from omiad.data.layouts import index_dataset

LAYERS = {
    "Stfpm": {"layers": (1, 2, 3)},  # strides 4, 8, 16 as in the paper
    "Supersimplenet": {"layers": (2, 3)},  # strides 8, 16 as in the paper
    "Patchflow": {},  # strides 8, 16, 32 by itself
}
"""Each model and the feature maps of the backbone it reads, in timm's numbering."""


class Photographs(Dataset[Tensor]):
    """Image files as (3, size, size) in [0, 1], read when they are asked for."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index], self.size).float() / 255


def batch_of(images: list[Tensor]) -> ImageBatch:
    """Collate images, all labelled normal."""
    normal = torch.zeros(len(images), dtype=torch.bool)
    return ImageBatch(image=torch.stack(images), gt_label=normal)


def build(name: str, backbone: str, weights: Path, image_size: int) -> AnomalibModule:
    """Build a model on a backbone with weights of a local file."""
    kind = getattr(models, name)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps({"architecture": backbone}))
        Path(folder, "model.safetensors").symlink_to(weights.resolve())
        return kind(
            backbone=f"local-dir:{folder}",
            pre_processor=kind.configure_pre_processor((image_size, image_size)),
            post_processor=False,  # would rescale and clip the maps
            evaluator=False,
            visualizer=False,
            **LAYERS[name],
        )


def fit(model: AnomalibModule, paths: Sequence[Path], size: int, epochs: int, batch: int) -> None:
    """Train on all images together, in a new order in each epoch."""
    loader = DataLoader(Photographs(paths, size), batch, shuffle=True, collate_fn=batch_of)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **model.trainer_arguments,
    )
    trainer.fit(model, loader)


@torch.no_grad()
def write_maps(
    model: AnomalibModule, paths: Sequence[Path], root: Path, output: Path, size: int, side: int
) -> None:
    """Write the map of each image, of that side, at its path below the root."""
    model.eval()
    images = Photographs(paths, size)
    for index, path in enumerate(track(paths, description="maps")):
        anomaly_map = model(images[index][None]).anomaly_map.view(1, 1, size, size)
        anomaly_map = F.interpolate(anomaly_map, (side, side), mode="bilinear", align_corners=False)
        target = output / path.relative_to(root).with_suffix(".npy")
        target.parent.mkdir(parents=True, exist_ok=True)
        np.save(target, anomaly_map[0, 0].numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=sorted(LAYERS), required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--weights", type=Path, required=True, help="a .safetensors file of timm")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--map_size", type=int, help="side of the maps (default: of the images)")
    parser.add_argument("--max_epochs", type=int, default=35)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    size = arguments.image_size
    samples = index_dataset(arguments.root).samples
    train, test = ([s.image for s in samples if s.split == each] for each in ("train", "test"))
    lightning.seed_everything(arguments.seed)
    model = build(arguments.model, arguments.backbone, arguments.weights, size)
    started = time.perf_counter()
    fit(model, train, size, arguments.max_epochs, arguments.batch_size)
    minutes = (time.perf_counter() - started) / 60
    print(f"{arguments.max_epochs * len(train)} images in {minutes:.1f} minutes")
    side = arguments.map_size or size
    write_maps(model, test, arguments.root, arguments.output, size, side)


if __name__ == "__main__":
    main()
