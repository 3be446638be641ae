"""The targets of speed and parity: one run, a table of what is met, and all figures as JSON.

    python tests/benchmarks/targets.py MODEL PHOTOS [--old OLD_MODEL] [--output targets.json]

Every call takes its turn, so that other work slows all of them alike; figures are medians of the
processor's time on one thread. A target of a GPU is measured where torch sees one.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from contenders import FORMATS, calls, exports, old_default, own_backbone
from jsonargparse import CLI
from parity import normal_photographs, parity
from rich.console import Console
from rich.table import Table
from training_speed import training_speed
from turns import in_turns

from omiad import Detector
from omiad.benchmark.machine import machine
from omiad.benchmark.speed import Speed, measure, synthetic_photograph
from omiad.benchmark.table import speed_table
from omiad.export import export
from omiad.export.comparison import TOLERANCE, Comparison

EXACT = ("onnx float32", "openvino float32", "torch float32")
"""Exports that must agree with their model; the best export is the fastest of these."""


class Target(NamedTuple):
    """A target: what, how much, what was measured, and whether it is met (None: not measured)."""

    name: str
    bound: str
    measured: str
    met: bool | None


def main(
    model: str,
    photos: str,
    *,
    old: str | None = None,
    repetitions: int = 30,
    every: int = 1,
    batch_sizes: tuple[int, ...] = (1, 8, 64),
    seconds: float = 10,
    output: str | None = None,
) -> None:
    """Measure.

    Args:
        model: Checkpoint of the default model.
        photos: Folder of a data set, whose masks in `ground_truth` are left out, and whose normal
            photographs in `train` set the ranges of int8.
        old: Checkpoint of the default of before; by default one is built with random weights.
        repetitions: How often each call is timed.
        every: Only every so many of the photographs are compared; 0 compares none.
        batch_sizes: Photographs scored at once.
        seconds: Time of the runs of each batch size.
        output: JSON file to write all figures to.
    """
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    console, cpu = Console(width=160), torch.device("cpu")
    speeds = batches(model, batch_sizes, seconds)  # first, because the process grows
    for speed in speeds:
        console.print(speed_table(speed))
    detector = Detector.load(model)
    runs = exports(detector, normal_photographs(detector, photos, most=64))
    image = torch.randint(0, 256, (1, 3, *[detector.extractor.image_size] * 2), dtype=torch.uint8)
    older = old_default(detector) if old is None else Detector.load(old)
    times = in_turns(calls(detector, runs, older, image), repetitions)
    console.print(table("ms of one photograph", ("call", "ms"), times.items()))
    compared = parity(detector, runs, photos, every=every) if every else {}
    training = training_speed(detector, cpu, seconds=seconds)
    targets = [*of_times(times), *of_parity(compared), *of_gpu(model, seconds)]
    rows = [(x.name, x.bound, x.measured, said(x.met)) for x in targets]
    console.print(table("Targets", ("target", "bound", "measured", ""), rows))
    share = training["noise_ms"] / (training["noise_ms"] + training["step_ms"])
    console.print(f"Training step on the CPU: noise {share:.1%} of the time; {training}")
    if output is not None:
        record = {
            "machine": machine(cpu),
            "times_ms": times,
            "targets": [x._asdict() for x in targets],
            "parity": {
                k: [x.compared, x.score, x.anomaly_map, len(x.unlike)] for k, x in compared.items()
            },
            "unlike": {
                k: [f"{u.photograph.name}: {u.reason}" for u in x.unlike]
                for k, x in compared.items()
            },
            "batches": speeds,
            "training": training,
        }
        Path(output).write_text(json.dumps(record, indent=2) + "\n")


def batches(model: str, batch_sizes: tuple[int, ...], seconds: float) -> list[Speed]:
    """Return the speed of batches of the checkpoint and of its exports in float32."""
    speeds = []
    with tempfile.TemporaryDirectory() as folder, synthetic_photograph() as photograph:
        files = [Path(folder) / f"model{suffix}" for suffix in (".onnx", ".xml")]
        for file, name in zip(files, ("onnx", "openvino"), strict=True):
            export(model, format=name, out=str(file))  # type: ignore[arg-type]
        for path in (Path(model), *files):
            predictor = Detector.load(path)
            found = measure(predictor, path.name, [photograph], batch_sizes, seconds=seconds)
            speeds.append(found)
    return speeds


def of_times(times: dict[str, float]) -> list[Target]:
    """Return the targets of the time of one photograph."""
    runs = [f"{name} {precision}" for name, precision in FORMATS]
    ratio = {name: times[name] / times[f"{own_backbone(name)}, backbone"] for name in runs}
    best, fastest = (min(names, key=times.__getitem__) for names in (EXACT, runs))
    plain = times["eager"] / times["eager, batch norms apart, backbone"]
    eager = times["eager"] / times["eager, backbone"]
    compiled = times["eager"] / times["compiled"]
    faster = times["old default, eager"] / times[best]
    steps = times["ten steps"] / times["one step"]
    every = ", ".join(f"{name} {value:.2f}" for name, value in ratio.items())
    return [
        Target(
            f"{best}, the best export / its own backbone", "at most 1.5", every, ratio[best] <= 1.5
        ),
        Target("eager / its own backbone", "at most 1.6", f"{eager:.2f}", eager <= 1.6),
        Target("eager / the same by torch.compile", "none", f"{compiled:.2f}", None),
        Target("eager / that backbone with batch norms apart", "none", f"{plain:.2f}", None),
        Target(f"old default, eager / {best}", "at least 5", f"{faster:.1f}", faster >= 5),
        Target("ten steps / one step", "at least 8", f"{steps:.1f}", steps >= 8),
        Target("fastest export", "none", f"{fastest}, {times[fastest]:.0f} ms", None),
    ]


def of_parity(compared: dict[str, Comparison]) -> list[Target]:
    """Return the targets of the exports' differences."""
    return [
        Target(
            f"{name}, {found.compared} photographs",
            f"scores within {TOLERANCE:g}, no other decision" if name in EXACT else "none",
            f"score {found.score:.1e}, map {found.anomaly_map:.1e}, "
            f"{len(found.unlike)} other decisions",
            found.score <= TOLERANCE and not found.unlike if name in EXACT else None,
        )
        for name, found in compared.items()
    ]


def of_gpu(model: str, seconds: float) -> list[Target]:
    """Return the targets of a GPU, measured if there is one."""
    names = (
        "GPU, batch 64, photographs a second",
        "GPU, batch 1, p50",
        "GPU, training utilisation",
    )
    bounds = ("at least 6,700", "at most 4 ms", "at least 35 % of a product of matrices")
    if not torch.cuda.is_available():
        return [Target(*each, "no GPU", None) for each in zip(names, bounds, strict=True)]
    device = torch.device("cuda")
    detector = Detector.load(model, device=device)
    with synthetic_photograph() as photograph:
        speed = measure(detector, model, [photograph], (1, 64), seconds=seconds)
    one, many = (each["scoring"]["median_ms"] for each in speed["batches"])
    rate, share = 64_000 / many, training_speed(detector, device, seconds=seconds)["utilisation"]
    measured = (f"{rate:,.0f}", f"{one:.1f} ms", f"{share:.0%}")
    met = (rate >= 6700, one <= 4, share >= 0.35)
    return [Target(*each) for each in zip(names, bounds, measured, met, strict=True)]


def said(met: bool | None) -> str:
    return {True: "met", False: "MISSED", None: ""}[met]


def table(title: str, columns: tuple[str, ...], rows: Any) -> Table:
    """Return rows of texts and numbers as a table."""
    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*(f"{value:.1f}" if isinstance(value, float) else value for value in row))
    return shown


if __name__ == "__main__":
    CLI(main, as_positional=True)
