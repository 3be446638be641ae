"""The whole road on synthetic data: what `make demo` runs."""

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
from omiad.types import ImageBatch, Prediction

logger = logging.getLogger(__name__)


def demo(*, output: str = "runs/demo", configs: str = "configs", seed: int = 0) -> None:
    """Train, distil and test on a small synthetic multi-class data set, and show what was learned.

    Args:
        output: Folder for the data set and the runs.
        configs: Folder with demo_amdm.yaml and demo_omiad.yaml.
        seed: Seed of the data set and of training.

    Raises:
        MissingInputError: If the configurations are not there.
        InputError: If the folder holds anything.
    """
    root, config = Path(output), Path(configs)
    if not (config / "demo_amdm.yaml").is_file():
        raise MissingInputError(
            f"No 'demo_amdm.yaml' in '{config}'. Run the demo from a checkout of omiad, or give "
            f"--configs."
        )
    if root.exists() and any(root.iterdir()):
        raise InputError(
            f"'{root}' holds an earlier demo, perhaps an interrupted one. Remove it, or choose "
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
    _summarise(root, student)


def _summarise(root: Path, checkpoint: Path) -> None:
    learned = json.loads((root / "omiad" / "test" / "results.json").read_text())["mean"]
    detector = Detector.load(checkpoint)
    size = detector.extractor.image_size
    data = FeatureDataModule(str(root / "data"))
    data.use_extractor(detector.extractor)
    data.setup("test")
    untrained = _untrained(detector)
    means = _mean_images(data, size)
    figures = {
        "z-score against the category's mean image": _evaluate(
            data, lambda batch, names: _z_score(batch.images, names, means, detector.scoring)
        ),
        "untrained network": _evaluate(data, lambda batch, names: untrained(batch.images)),
        "OmiAD, one step": learned,
    }
    summary = root / "summary.json"
    summary.write_text(json.dumps(figures, indent=2) + "\n")
    table = Table(title="What was learned (mean over categories, %)")
    for heading in ("method", "pixel AUROC", "image AUROC"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for name, mean in figures.items():
        table.add_row(name, *(f"{100 * mean[key]:.1f}" for key in ("pixel_auroc", "image_auroc")))
    console = Console()
    console.print(table)
    for what, path in (
        ("summary", summary.name),
        ("results", "omiad/test/results.json"),
        ("heat-maps", "omiad/test/panels"),
        ("training curves", "omiad/curves.png"),
        ("checkpoint", "omiad/checkpoints/last.ckpt"),
    ):
        console.print(f"{what:16} {root / path}", highlight=False, soft_wrap=True)
    console.print(
        f"\nNext: omiad predict --ckpt_path {checkpoint} --images {root}/data/gear/test",
        highlight=False,
        soft_wrap=True,
    )


def _evaluate(
    data: FeatureDataModule, score: Callable[[ImageBatch, list[str]], Prediction]
) -> dict[str, float | None]:
    samples = data.samples("test")
    metrics = AnomalyMetrics(data.categories)
    for batch in data.test_dataloader():
        names = [samples[i].category for i in batch.labels.index.tolist()]
        metrics.update(score(batch, names), batch.labels, names)
    return metrics.compute().mean


def _untrained(detector: Detector) -> Detector:
    """Return the detector with a network that has seen nothing."""
    spec = network_spec(cast(Network, detector.denoiser.network))
    untrained = Detector.from_spec(detector.spec)
    untrained.load_state_dict(detector.state_dict())
    untrained.denoiser.network = build_network(spec)
    return untrained.eval()


def _mean_images(data: FeatureDataModule, size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return mean and deviation (3, S, S) of each category's normal images, in 0..255."""
    images: dict[str, list[Tensor]] = defaultdict(list)
    for sample in data.samples("train"):
        images[sample.category].append(read_image(sample.image, size).float())
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
