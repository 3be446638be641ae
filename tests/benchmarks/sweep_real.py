"""Experiments on your own photographs, judged without looking at a real defect.

    make sweep-real ROOT=real WEIGHTS=mobilenetv2_100.safetensors
    make sweep-real ROOT=real WEIGHTS=mobilenetv2_100.safetensors ARGS="--only amdm --seeds 0 1 2"
    make sweep-real ROOT=real WEIGHTS=mobilenetv2_100.safetensors ARGS="--small --only asd_5e-5"

Every figure is measured on a validation set made of training images (`omiad data holdout`):
held-out normal images, and artificial defects. `--test_split` takes the real test images instead;
use it to report what was chosen, not to choose. The script trains whatever is missing of
experiments.yaml, tests it, and writes one table with the best experiment first. It may be
interrupted: the next call skips what is done and resumes what was begun.
"""

import argparse
import hashlib
import json
import shlex
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml

from omiad.commands import configure_output
from omiad.data.holdout import hold_out
from omiad.paper.markup import render
from omiad.paper.runs import Runs
from omiad.record import read_results

EXPERIMENTS = Path(__file__).with_name("experiments.yaml")


def results(
    runs: Runs, options: dict[str, str], shared: dict[str, str], seed: int
) -> dict[str, Any]:
    """Train what is missing and return the figures of an experiment."""
    teacher, distil, test = (options.get(part) for part in ("teacher", "distil", "test"))
    seeded = [f"--data.root={runs.root}", f"--seed_everything={seed}"]
    small = ["--small"] * runs.small
    words = [*shlex.split(f"{shared['teacher']} {teacher or ''}"), *seeded]
    folder = runs.folder / f"teacher_{digest([*small, *words])}"
    checkpoint = runs.fitted("amdm", folder, words)
    if distil is not None:
        words = [f"--model.teacher={checkpoint}", *shlex.split(f"{distil} {shared['distil']}")]
        words += seeded
        folder = runs.folder / f"distil_{digest([*small, *words])}"
        checkpoint = runs.fitted("omiad", folder, words)
    tested = shlex.split(test or "")
    folder = folder / f"test_{digest(tested)}"
    print(f"results: {folder}")
    return read_results(runs.tested(folder, checkpoint, tested))


def digest(options: list[str]) -> str:
    return hashlib.sha256(json.dumps(options).encode()).hexdigest()[:12]


def table(figures: dict[str, list[dict[str, Any]]], images: str) -> str:
    """Write the experiments as Markdown, the best first."""
    rows_of_all = next(iter(figures.values()))[0]["categories"]
    categories = [name for name, row in rows_of_all.items() if row["mad"] is not None]
    lines = []
    for name, rows in figures.items():
        mads = [100 * row["mean"]["mad"] for row in rows]
        spread = f"{stdev(mads):.1f}" if len(mads) > 1 else ""
        means = (mean(100 * row["categories"][each]["mad"] for row in rows) for each in categories)
        line = [name, str(len(rows)), f"{mean(mads):.1f}", spread, *(f"{x:.1f}" for x in means)]
        lines.append((mean(mads), line))
    lines.sort(key=lambda pair: -pair[0])
    headings = ["experiment", "seeds", "mAD", "spread", *categories]
    return render(".md", f"mAD on {images} (%)", headings, [[line for _, line in lines]])


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="a file, pretrained or random")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--output", type=Path, default=Path("runs/sweep_real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--options", default="", help="further options of stage 1")
    parser.add_argument("--distil_options", default="", help="further options of stage 2")
    parser.add_argument("--test_split", action="store_true", help="judge by real defects")
    parser.add_argument("--small", action="store_true", help="use the small preset")
    experiments = yaml.safe_load(EXPERIMENTS.read_text())
    parser.add_argument("--only", nargs="+", metavar="EXPERIMENT", choices=[*experiments])
    arguments = parser.parse_args(given)
    configure_output()
    root, images = arguments.output / "validation", "the validation set"
    if arguments.test_split:
        root, images = arguments.root, "the test split"
    elif not root.exists():
        hold_out(arguments.root, root)
    runs = Runs("folder", root, arguments.output, small=arguments.small)
    backbone = ["--data.backbone", arguments.backbone, "--data.weights", arguments.weights]
    shared = {
        "teacher": f"{shlex.join(backbone)} {arguments.options}",
        "distil": arguments.distil_options,
    }
    figures: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.only or experiments:
        for seed in arguments.seeds:
            print(f"experiment: {name}, seed {seed}")
            row = results(runs, experiments[name], shared, seed)
            figures.setdefault(name, []).append(row)
    path = runs.folder / "experiments.md"
    path.write_text(table(figures, images))
    print(f"{path.read_text()}\ntable: {path}")


if __name__ == "__main__":
    main()
