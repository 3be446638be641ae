"""Do decisions keep their promise? False alarms, defects found, products recognised.

    python tests/benchmarks/decisions.py model.ckpt real scores.npz

Scores all normal photographs that the network was not trained on (those that `calibration_share`
kept out of training, and test/good), cross-fits the others as `omiad train` does, and describes all
photographs. What was measured is kept in scores.npz, from which a second call prints at once.

- Random splits: the photographs that the network was not trained on are split at random, two
  thirds to set the threshold, one third to count false alarms.
- As trained: the threshold is the one that `omiad train` sets, and test/good counts false alarms.
  In parentheses: how probable so many false alarms or more are if the photographs are exchangeable.
- Products left out: recognition is fitted without a product, whose photographs are all unknown.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import betabinom
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from omiad import Detector, FeatureDataModule
from omiad.checkpoint import read_checkpoint
from omiad.conformal import smallest_rate, threshold
from omiad.learning import learn_products
from omiad.products import NormalScores, Products, description
from omiad.types import Sample

RATES = (0.01, 0.05, 0.1)
SPLITS = 100
SPLIT_NAMES = ("train", "calibration", "test")


def measure(
    detector: Detector,
    features: Dataset[Tensor],
    samples: dict[str, Sequence[Sample]],
    path: Path,
) -> None:
    """Write scores and descriptions of all photographs, in the order of the splits, to a file."""
    listed = [(split, sample) for split in SPLIT_NAMES for sample in samples[split]]
    score = np.full(len(listed), np.nan, np.float32)
    described = []
    for i, (split, _) in enumerate(listed):
        raw = features[i][None]
        described.append(description(raw)[0].numpy())
        if split == "test":
            score[i] = float(detector.score_features(raw).score)
            print(f"\r{i} of {len(listed)}", end="", flush=True)
    print()
    where: dict[str, dict[str, list[int]]] = {"train": {}, "calibration": {}, "test": {}}
    for i, (split, sample) in enumerate(listed):
        where[split].setdefault(sample.category, []).append(i)
    learn_products(detector, features, where["train"], where["calibration"])
    for number, name in enumerate(detector.products.names):
        rows = where["calibration"].get(name) or where["train"][name]
        image = detector.products.normal(number).image.numpy()
        if name not in where["calibration"]:  # in the order of the folds
            rows = [row for fold in range(4) for row in rows[fold::4]]
        score[rows] = image
    np.savez(
        path,
        score=score,
        described=np.stack(described),
        split=[split for split, _ in listed],
        category=[sample.category for _, sample in listed],
        defective=[sample.is_anomalous for _, sample in listed],
    )


class Measured:
    """What `measure` wrote."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as file:
            self.__dict__.update({name: file[name] for name in file.files})
        self.names = sorted({*self.category.tolist()})  # type: ignore[attr-defined]

    def scores(self, name: str, split: str, *, defective: bool = False) -> Tensor:
        own: Any = self
        chosen = (own.category == name) & (own.split == split) & (own.defective == defective)
        return torch.from_numpy(own.score[chosen])

    def points(self, name: str, *splits: str, defective: bool = False) -> Tensor:
        own: Any = self
        chosen = (own.category == name) & np.isin(own.split, splits) & (own.defective == defective)
        return torch.from_numpy(own.described[chosen])


def random_splits(measured: Measured, name: str) -> None:
    """Print false alarms and defects found over random splits of the unseen normals."""
    pool = torch.cat([measured.scores(name, split) for split in ("calibration", "test")])
    generator = torch.Generator().manual_seed(0)
    defects = measured.scores(name, "test", defective=True)
    number = len(pool) * 2 // 3
    cells = []
    for rate in RATES:
        if rate < smallest_rate(number):
            cells.append("-")
            continue
        alarms, found = [], []
        for _ in range(SPLITS):
            shuffled = pool[torch.randperm(len(pool), generator=generator)]
            limit = threshold(shuffled[:number], rate)
            alarms.append(float((shuffled[number:] > limit).float().mean()))
            found.append(float((defects > limit).float().mean()))
        error = np.std(alarms, ddof=1) / SPLITS**0.5
        cells.append(f"{np.mean(alarms):.1%} ± {error:.1%} / {np.mean(found):.0%}")
    print(f"| {name} | {number} | {len(pool) - number} | {' | '.join(cells)} |")


def as_trained(measured: Measured, name: str) -> None:
    """Print false alarms on test/good and defects found with the threshold of the training."""
    kept = measured.scores(name, "calibration")
    how, normal = ("kept out", kept) if len(kept) else ("in turns", measured.scores(name, "train"))
    unseen = measured.scores(name, "test")
    defects = measured.scores(name, "test", defective=True)
    cells = []
    for rate in RATES:
        if rate < smallest_rate(len(normal)):
            cells.append("-")
            continue
        limit = threshold(normal, rate)
        alarms, found = int((unseen > limit).sum()), float((defects > limit).float().mean())
        chance = chance_of(alarms, len(unseen), len(normal), rate)
        cells.append(f"{alarms} of {len(unseen)} ({chance:.1%}) / {found:.0%}")
    print(f"| {name} | {how} | {len(normal)} | {len(unseen)} | {' | '.join(cells)} |")


def chance_of(alarms: int, num_unseen: int, num_normal: int, rate: float) -> float:
    """Return the probability of so many false alarms or more if photographs are exchangeable.

    The number of false alarms then has a beta-binomial distribution.
    """
    total = num_normal + 1
    rank = int(rate * total + 1e-9)
    return float(betabinom.sf(alarms - 1, num_unseen, rank, total - rank))


def recognition(measured: Measured, name: str) -> None:
    """Print how photographs of a product are recognised, known and left out."""
    fitted = {each: measured.points(each, "train", "calibration") for each in measured.names}
    known, number = products_of(fitted), measured.names.index(name)
    shares = []
    for defective in (False, True):
        found = known.recognise(measured.points(name, "test", defective=defective))
        shares += [
            sum(each is None for each in found) / len(found),
            sum(each not in (None, number) for each in found) / len(found),
        ]
    without = products_of({each: x for each, x in fitted.items() if each != name})
    every = [measured.points(name, *SPLIT_NAMES, defective=x) for x in (False, True)]
    found = without.recognise(torch.cat(every))
    shares.append(sum(each is None for each in found) / len(found))
    print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |")


def products_of(described: dict[str, Tensor]) -> Products:
    """Return products that recognise, with no scores."""
    none = NormalScores(torch.zeros(1), torch.zeros(1))
    products = Products(next(iter(described.values())).shape[1])
    products.fit(described, dict.fromkeys(described, none))
    return products


def show(measured: Measured) -> None:
    """Print all tables."""
    rates = " | ".join(f"{rate:.0%}" for rate in RATES)
    print(f"\n| random splits | set | unseen | {rates} |\n|---|---|---|---|---|---|")
    for name in measured.names:
        random_splits(measured, name)
    print(f"\n| as trained | | set | test/good | {rates} |\n|---|---|---|---|---|---|---|")
    for name in measured.names:
        as_trained(measured, name)
    heading = "normal unknown | normal wrong | defect unknown | defect wrong | left out, unknown"
    print(f"\n| recognition | {heading} |\n|---|---|---|---|---|---|")
    for name in measured.names:
        recognition(measured, name)


def main() -> None:
    """Measure unless that is done, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for argument in ("ckpt_path", "root", "scores"):
        parser.add_argument(argument, type=Path)
    given = parser.parse_args()
    if not given.scores.exists():
        settings = read_checkpoint(given.ckpt_path)["datamodule_hyper_parameters"]
        detector = Detector.load(given.ckpt_path)
        data = FeatureDataModule(
            str(given.root), cache="all", calibration_share=settings["calibration_share"]
        )
        data.use_extractor(detector.extractor)
        features = ConcatDataset([data.features(split) for split in SPLIT_NAMES])
        samples = {split: data.samples(split) for split in SPLIT_NAMES}
        measure(detector, features, samples, given.scores)
    show(Measured(given.scores))


if __name__ == "__main__":
    main()
