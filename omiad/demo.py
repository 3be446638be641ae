"""`omiad demo`, which `make demo` runs: train, distil and test end to end on synthetic data."""

import json
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from omiad.data import FeatureDataModule
from omiad.data.images import read_image
from omiad.data.layouts.synthetic import synthesize
from omiad.detector import Detector
from omiad.errors import InputError, MissingInputError
from omiad.lightning_cli import OmiadCLI
from omiad.metrics import AnomalyMetrics
from omiad.networks import Network, build_network, network_spec
from omiad.scoring import Scoring, image_score
from omiad.types import Prediction

logger = logging.getLogger(__name__)

Score = Callable[[Tensor, list[str]], Prediction]
"""A method: it takes images (B, 3, S, S), uint8, with their categories."""


def demo(*, output: str = "runs/demo", configs: str = "configs", seed: int = 0) -> None:
    """Train, distil and test end to end on synthetic data, and compare with two simple methods.

    Args:
        output: Folder for the data set and the runs.
        configs: Folder with demo_amdm.yaml and demo_omiad.yaml.
        seed: Seed of the data set and of training.

    Raises:
        MissingInputError: If the configurations are missing.
        InputError: If the output folder is not empty.
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
    logger.info("data: %s", data)
    teacher, student = (root / kind / "checkpoints" / "last.ckpt" for kind in ("amdm", "omiad"))
    shared = [f"--data.root={data}", f"--seed_everything={seed}", f"--data.cache_dir={root}/cache"]
    for kind, extra in (("amdm", []), ("omiad", [f"--model.teacher={teacher}"])):
        run_dir = f"--run_dir={root / kind}"
        OmiadCLI(["fit", f"--config={config}/demo_{kind}.yaml", run_dir, *shared, *extra])
    for kind, checkpoint in (("amdm", teacher), ("omiad", student)):
        OmiadCLI(["test", f"--ckpt_path={checkpoint}", f"--run_dir={root / kind / 'test'}"])
    figures = _compare(root, student)
    (root / "summary.json").write_text(json.dumps(figures, indent=2) + "\n")
    _print_summary(root, figures)


def _compare(root: Path, checkpoint: Path) -> dict[str, dict[str, float | None]]:
    """Return the mean figures of the trained model and of two methods that were not trained."""
    learned = json.loads((root / "omiad" / "test" / "results.json").read_text())["mean"]
    detector = Detector.load(checkpoint)
    data = FeatureDataModule(str(root / "data"), image_size=detector.extractor.image_size)
    data.use_extractor(detector.extractor)
    data.setup("test")
    untrained = _untrained(detector)
    means = _mean_images(data)
    return {
        "z-score against the category's mean image": _evaluate(
            data, lambda images, names: _z_score(images, names, means, detector.scoring)
        ),
        "untrained network": _evaluate(data, lambda images, names: untrained(images)),
        "OmiAD, one step": learned,
    }


def _evaluate(data: FeatureDataModule, score: Score) -> dict[str, float | None]:
    samples = data.samples("test")
    metrics = AnomalyMetrics(data.categories)
    for images, labels in data.test_dataloader():
        names = [samples[i].category for i in labels.index.tolist()]
        metrics.update(score(images, names), labels, names)
    return metrics.compute().mean


def _untrained(detector: Detector) -> Detector:
    """Return a copy of the detector whose network has its initial weights."""
    spec = network_spec(cast(Network, detector.denoiser.network))
    untrained = Detector.from_spec(detector.spec)
    untrained.load_state_dict(detector.state_dict())
    untrained.denoiser.network = build_network(spec)
    return untrained.eval()


def _mean_images(data: FeatureDataModule) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and deviation (3, S, S) of each category's training images, in 0..255."""
    images: dict[str, list[Tensor]] = defaultdict(list)
    for sample in data.samples("train"):
        images[sample.category].append(read_image(sample.image, data.image_size).float())
    stacked = {name: torch.stack(pixels) for name, pixels in images.items()}
    return {name: (x.mean(0), x.std(0).clamp(min=1.0)) for name, x in stacked.items()}


def _z_score(
    images: Tensor, names: list[str], means: dict[str, tuple[Tensor, Tensor]], scoring: Scoring
) -> Prediction:
    z = torch.stack(
        [(x.float() - means[n][0]) / means[n][1] for x, n in zip(images, names, strict=True)]
    )
    anomaly_map = z.square().sum(1).sqrt()
    return Prediction(image_score(anomaly_map, scoring), anomaly_map)


def _print_summary(root: Path, figures: dict[str, dict[str, float | None]]) -> None:
    table = Table(title="What was learned (mean over categories, %)")
    for heading in ("method", "pixel AUROC", "image AUROC"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, mean in figures.items():
        cells = [mean[key] for key in ("pixel_auroc", "image_auroc")]
        table.add_row(name, *("-" if cell is None else f"{100 * cell:.1f}" for cell in cells))
    console = Console()
    console.print(table)
    checkpoint = root / "omiad" / "checkpoints" / "last.ckpt"
    for what, path in (
        ("summary", root / "summary.json"),
        ("results", root / "omiad" / "test" / "results.json"),
        ("heat maps", root / "omiad" / "test" / "panels"),
        ("training curves", root / "omiad" / "curves.png"),
        ("checkpoint", checkpoint),
    ):
        console.print(f"{what:16} {path}", highlight=False, soft_wrap=True)
    console.print(
        f"\nNext: omiad predict --ckpt_path {checkpoint} --images {root}/data/gear/test",
        highlight=False,
        soft_wrap=True,
    )
