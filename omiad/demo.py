"""`omiad demo`, which `make demo` runs: train, distil and test end to end on synthetic data."""

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from rich.table import Column, Table
from torch import Tensor

from omiad.data import FeatureDataModule
from omiad.data.layouts.synthetic import synthesize
from omiad.detector import Detector
from omiad.errors import InputError, MissingInputError
from omiad.lightning_cli import OmiadCLI
from omiad.metrics import AnomalyMetrics
from omiad.networks import Network, build_network, network_spec
from omiad.photographs import read_image
from omiad.scoring import image_score
from omiad.terminal import console
from omiad.types import Prediction


def demo(*, output: str = "runs/demo", configs: str = "configs", seed: int = 0) -> None:
    """Train, distil and test end to end on synthetic data, and compare with two simple methods.

    Args:
        output: Folder for the data set and the runs.
        configs: Folder with demo_amdm.yaml and demo_omiad.yaml.
        seed: Seed of the data set and of training.

    Raises:
        InputError: If the configurations are missing, or the output folder is not empty.
    """
    root, config = Path(output), Path(configs)
    if not (config / "demo_amdm.yaml").is_file():
        raise MissingInputError(
            f"No 'demo_amdm.yaml' in '{config}'. Run the demo from a checkout of omiad, or give "
            f"--configs."
        )
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f"'{root}' contains an earlier demo, finished or not. Remove the folder, or choose "
            f"another --output."
        )
    data = root / "data"
    synthesize(data, seed=seed)
    checkpoints = {kind: root / kind / "checkpoints/last.ckpt" for kind in ("amdm", "omiad")}
    shared = [f"--data.root={data}", f"--seed_everything={seed}", f"--data.cache_dir={root}/cache"]
    for kind, of_teacher in (("amdm", []), ("omiad", [f"--model.teacher={checkpoints['amdm']}"])):
        fit = [f"--config={config}/demo_{kind}.yaml", *shared, *of_teacher]
        OmiadCLI(["fit", f"--run_dir={root}/{kind}", *fit])
        OmiadCLI(["test", f"--run_dir={root}/{kind}/test", f"--ckpt_path={checkpoints[kind]}"])
    figures = _compare(root, checkpoints["omiad"])
    (root / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    _print_summary(root, figures)


def _compare(root: Path, checkpoint: Path) -> dict[str, dict[str, float | None]]:
    """Return the mean figures of the trained model and of two methods that were not trained."""
    detector, untrained = Detector.load(checkpoint), Detector.load(checkpoint)
    spec = network_spec(cast(Network, detector.denoiser.network))
    untrained.denoiser.network = build_network(spec).eval()
    data = FeatureDataModule(str(root / "data"), image_size=detector.extractor.image_size)
    data.use_extractor(detector.extractor)
    data.setup("test")
    pixels: dict[str, list[Tensor]] = defaultdict(list)
    for sample in data.samples("train"):
        pixels[sample.category].append(read_image(sample.image, data.image_size).float())
    means = {name: torch.stack(images).mean(0) for name, images in pixels.items()}
    deviations = {name: torch.stack(x).std(0).clamp(min=1.0) for name, x in pixels.items()}

    def z_score(images: Tensor, names: list[str]) -> Prediction:
        mean, deviation = (torch.stack([of[n] for n in names]) for of in (means, deviations))
        anomaly_map = ((images.float() - mean) / deviation).square().sum(1).sqrt()
        return Prediction(image_score(anomaly_map, detector.scoring), anomaly_map)

    return {
        "z-score against the category's mean image": _evaluate(data, z_score),
        "untrained network": _evaluate(data, lambda images, names: untrained(images)),
        "OmiAD, one step": json.loads((root / "omiad/test/results.json").read_text())["mean"],
    }


def _evaluate(
    data: FeatureDataModule, method: Callable[[Tensor, list[str]], Prediction]
) -> dict[str, float | None]:
    """Return the mean figures of a method that takes images (B, 3, S, S) with their categories."""
    samples = data.samples("test")
    metrics = AnomalyMetrics(data.categories)
    for images, labels in data.test_dataloader():
        names = [samples[i].category for i in labels.index.tolist()]
        metrics.update(method(images, names), labels, names)
    return metrics.compute().mean


def _print_summary(root: Path, figures: dict[str, dict[str, float | None]]) -> None:
    columns = (Column(name, justify="right") for name in ("pixel AUROC", "image AUROC"))
    table = Table("method", *columns, title="What was learned (mean over categories, %)")
    for name, mean in figures.items():
        cells = [mean[key] for key in ("pixel_auroc", "image_auroc")]
        table.add_row(name, *("-" if cell is None else f"{100 * cell:.1f}" for cell in cells))
    console().print(table)
    lines = f"""\
summary          {root}/summary.json
results          {root}/omiad/test/results.json
heat maps        {root}/omiad/test/panels
training curves  {root}/omiad/curves.png
checkpoint       {root}/omiad/checkpoints/last.ckpt

Next: omiad predict {root}/omiad/checkpoints/last.ckpt {root}/data/gear/test"""
    console().print(lines, soft_wrap=True)
