"""How good is a product that `omiad extend` adds, against training with it?

    python tests/benchmarks/extending.py real out --left_out cookie pcb --steps 300

Trains one model with all products, and for each product in --left_out one model without it: the
same configuration, steps and seed. The product is then added with `omiad extend`, and its test
photographs are scored by all three. Test photographs of the other products must keep their scores.
A step that is done is not done again. Features of training photographs are cached once for all.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from omiad import Detector, FeatureDataModule
from omiad.checkpoint import read_checkpoint
from omiad.configurations import find_configuration
from omiad.data import datamodule
from omiad.data.images import read_image
from omiad.data.layouts import Index
from omiad.learning import learn_products
from omiad.lightning_cli import OmiadCLI
from omiad.types import Sample
from omiad.updating import extend, normals

NUM_COMPARED = 10
"""Test photographs of the other products whose scores are compared."""


@contextmanager
def only(chosen: Callable[[Sample], bool]) -> Iterator[None]:
    """Let data modules list these samples alone, so that all of them share one cache."""
    whole = datamodule.index_dataset

    def part(*args: Any, **options: Any) -> Index:
        index = whole(*args, **options)
        return index._replace(samples=[each for each in index.samples if chosen(each)])

    datamodule.index_dataset = part
    try:
        yield
    finally:
        datamodule.index_dataset = whole


def fit(root: Path, folder: Path, steps: int, more: list[str]) -> Path:
    """Train a model on the listed products, let it decide, and return its checkpoint."""
    path = folder / "model.ckpt"
    if not path.exists():
        options = [f"--config={find_configuration('amdm_folder')}", f"--data.root={root}"]
        options += [f"--trainer.max_steps={steps}", "--data.calibration_share=0.3", *more]
        OmiadCLI(["fit", *options, f"--run_dir={folder / 'fit'}"])
        source = folder / "fit" / "checkpoints" / "last.ckpt"
        detector = Detector.load(source)
        settings = read_checkpoint(source)["datamodule_hyper_parameters"]
        names = ("root", "calibration_share", "cache_dir")
        data = FeatureDataModule(**{name: settings[name] for name in names})
        data.use_extractor(detector.extractor)
        learn_products(detector, *normals(data))
        detector.save(path, like=source)
    return path


def figures(ckpt_path: Path, root: Path, folder: Path, name: str) -> tuple[float, float]:
    """Return image AUROC and mAD, in percent, of the test photographs of a product."""
    if not (folder / "results.json").exists():
        with only(lambda sample: sample.category == name):
            options = [f"--data.root={root}", f"--run_dir={folder}"]
            OmiadCLI(["test", f"--ckpt_path={ckpt_path}", *options])
    row = json.loads((folder / "results.json").read_text())["categories"][name]
    return tuple(100 * (row[key] or float("nan")) for key in ("image_auroc", "mad"))


def num_unchanged(before: Path, after: Path, samples: list[Sample]) -> int:
    """Return how many photographs have the same score bit for bit from two models."""
    one, other = Detector.load(before), Detector.load(after)
    size = one.extractor.image_size
    images = [read_image(sample.image, size)[None] for sample in samples]
    pairs = [(one(image), other(image)) for image in images]
    return sum(
        torch.equal(a.score, b.score) and torch.equal(a.anomaly_map, b.anomaly_map)
        for a, b in pairs
    )


def main() -> None:
    """Train, extend, test, and print a row for each product."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--left_out", nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=300)
    given, more = parser.parse_known_args()
    root, out = given.root, given.out
    whole = fit(root, out / "whole", given.steps, more)
    print("| product | not added | extended | trained with it | others unchanged |")
    print("|---|---|---|---|---|", flush=True)
    for name in given.left_out:
        folder = out / name
        with only(lambda sample, name=name: sample.category != name):
            before = fit(root, folder, given.steps, more)
        after = folder / "extended.ckpt"
        if not after.exists():
            extend(str(before), str(root / name), out=str(after))
        models = {"before": before, "after": after, "whole": whole}
        found = [figures(path, root, folder / key, name) for key, path in models.items()]
        cells = [f"{auroc:.1f} / {mad:.1f}" for auroc, mad in found]
        listed = datamodule.index_dataset(root).samples
        others = [each for each in listed if each.category != name and each.split == "test"]
        compared = others[:: len(others) // NUM_COMPARED]
        unchanged = num_unchanged(before, after, compared)
        row = f"| {name} | {' | '.join(cells)} | {unchanged} of {len(compared)} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
