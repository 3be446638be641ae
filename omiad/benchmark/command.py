"""`omiad benchmark`: how fast a model is here, part by part, and what the paper says."""

import json
from contextlib import ExitStack
from pathlib import Path

from omiad.benchmark.machine import machine
from omiad.benchmark.speed import SYNTHETIC, measure, synthetic_photograph
from omiad.benchmark.table import paper_seconds, paper_speeds, speed_table
from omiad.compilation import CompileMode, check_mode, compile_detector
from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError
from omiad.files import new_file, write_whole
from omiad.prediction.photographs import find_photographs
from omiad.runtimes import device_for
from omiad.terminal import console


def benchmark(
    model: str,
    *,
    export: str | None = None,
    photos: list[str] | None = None,
    batch_sizes: tuple[int, ...] = (1, 8, 64),
    seconds: float = 10,
    num_steps: int | None = None,
    output: str | None = None,
    device: str = "auto",
    compile: CompileMode | None = None,  # noqa: A002  the name of the option
    trust: str | None = None,
) -> None:
    """Measure how fast a model reads and scores photographs on this machine.

    Prints the median time of each part, percentiles, the peak of memory, and Table 2 of the paper.

    Args:
        model: Checkpoint.
        export: File that was exported from it, to be measured too.
        photos: Photographs and folders to measure with; by default a synthetic one. Only the time
            to decode depends on them.
        batch_sizes: Photographs scored at once, one number or more.
        seconds: How long the runs of each batch size are repeated; there are at least five runs.
        num_steps: DDIM steps of the checkpoint, such as 10; by default its own.
        output: JSON file to write all figures to.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        compile: Measure the checkpoint compiled by torch.compile, too: default, or reduce-overhead
            for CUDA graphs on a GPU.
        trust: Class path of a network of your own that the checkpoint names; it is imported.

    Raises:
        InputError: If an option is out of range, the output exists, or a model or photograph cannot
            be read.
    """
    sizes = sorted({*batch_sizes})
    if sizes[0] < 1:
        raise InputError(f"--batch_sizes must be at least 1, but got {sizes[0]}.")
    if not seconds > 0:
        raise InputError(f"--seconds must be above 0, but got {seconds:g}.")
    where, shown = pick_device(device), console()
    if compile is not None:
        check_mode(compile, where)
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(new_file(Path(output), option="--output"))
        if photos:
            paths = [each.path for each in find_photographs(photos)]
        else:
            paths = [stack.enter_context(synthetic_photograph())]
        changes = {} if num_steps is None else {"num_steps": num_steps}
        speeds = []
        for path in (model, *([] if export is None else [export])):
            own = changes if path == model else {}
            used = pick_device(device_for(path, device))
            predictor = Detector.load(path, device=used, trust=trust, **own)
            speeds.append(measure(predictor, path, paths, sizes, seconds=seconds))
            shown.print(speed_table(speeds[-1]))
            if compile is not None and path == model:
                compile_detector(predictor, compile)
                name = f"{path}, compiled"
                speeds.append(measure(predictor, name, paths, sizes, seconds=seconds))
                shown.print(speed_table(speeds[-1]))
        here = machine(where)
        shown.print(", ".join(f"{name} {value}" for name, value in here.items()))
        shown.print(paper_speeds(speeds))
        if output is not None:
            record = {
                "machine": here,
                "photographs": photos or f"synthetic JPEG, {SYNTHETIC[0]} x {SYNTHETIC[1]}",
                "models": speeds,
                "paper_table_2_seconds_per_batch_of_64": paper_seconds(),
            }
            write_whole(Path(output), json.dumps(record, indent=2) + "\n")
