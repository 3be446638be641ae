"""The commands that write something, and what their output is worth."""

import csv
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from world import AMDM, DATA, QUIET, TRAINER, World, data_of

SECOND = "second"
"""Where a fit or a test goes on, since it never writes into the folder of another run."""


@dataclass(frozen=True)
class Job:
    """A command that is disturbed.

    Attributes:
        name: Its row in the table.
        words: The command, given the world and the folder or file to write.
        again: The command that goes on after a disturbance, given the world and the folder that
            was written; by default the same command.
        outcome: What the output must be equal in, given the world and the folder.
        done: File below the output that stands for a whole output; "." is the output itself.
    """

    name: str
    words: Callable[[World, Path], str]
    outcome: Callable[[World, Path], Any]
    again: Callable[[World, Path], str] | None = None
    done: str = ""

    def result(self, out: Path) -> Path:
        """Return where the output lies after the command that goes on."""
        return out.with_name(SECOND) if self.again else out


def _data(world: World, out: Path) -> str:
    return f"{DATA} --data.root={world.data} --data.cache_dir={out.parent}/cache"


def _amdm(world: World, out: Path) -> str:
    return f"fit --run_dir={out} {TRAINER} {AMDM} {_data(world, out)} --trainer.max_steps=12"


def _omiad(world: World, out: Path) -> str:
    model = f"--model=omiad.modules.OmiADModule --model.teacher={world.teacher}"
    return f"fit --run_dir={out} {TRAINER} {model} {_data(world, out)} --trainer.max_steps=17"


def _resumed(words: Callable[[World, Path], str]) -> Callable[[World, Path], str]:
    """Go on from the checkpoint that is there, or else from the start."""

    def again(world: World, out: Path) -> str:
        path, second = out / "checkpoints" / "last.ckpt", out.with_name(SECOND)
        if not path.exists():
            return words(world, second)
        steps = words(world, out).rpartition("--trainer.max_steps=")[2].split()[0]
        return (
            f"fit --ckpt_path={path} --run_dir={second} {QUIET} --trainer.max_epochs=-1 "
            f"--trainer.max_steps={steps} --data.cache_dir={out.parent}/cache"
        )

    return again


def _often(words: Callable[[World, Path], str]) -> Callable[[World, Path], str]:
    """Write a checkpoint after every step."""
    return lambda world, out: f"{words(world, out)} --checkpoint.every_n_steps=1"


def _test(world: World, out: Path) -> str:
    cache = f"--data.cache_dir={out.parent}/cache"
    return f"test --ckpt_path={world.student} --run_dir={out} {QUIET} --save_maps {cache}"


def _test_again(world: World, out: Path) -> str:
    return _test(world, out.with_name(SECOND))


def weights(world: World, run: Path) -> dict[str, str]:
    """Return a digest of each weight and optimiser state of a run, and its progress."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    digests = {name: _digest_of(value) for name, value in checkpoint["state_dict"].items()}
    for number, optimizer in enumerate(checkpoint["optimizer_states"]):
        for key, state in optimizer["state"].items():
            digests |= {f"{number}/{key}/{name}": _digest_of(x) for name, x in state.items()}
    return digests | {"progress": str(checkpoint["omiad"]["progress"])}


def _digest_of(value: Any) -> str:
    tensor = torch.as_tensor(value).contiguous()
    return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _figures(world: World, run: Path) -> Any:
    record = json.loads((run / "results.json").read_text())
    files = tree(run)
    pictures = {n: files[n] for n in files if n.startswith(("panels/", "maps/"))}
    return record["categories"], record["mean"], pictures, files["scores.csv"]


def _predictions(world: World, out: Path) -> Any:
    with (out / "predictions.csv").open(newline="") as file:
        rows = sorted(map(tuple, csv.reader(file)))
    files = tree(out)
    is_page = (out / "index.html").read_text().count("data:image")
    return rows, {n: files[n] for n in files if n.startswith("overlays/")}, is_page


def _page(world: World, out: Path) -> Any:
    return (out / "index.html").read_text().count("data:image"), sorted(tree(out))


def _features(world: World, out: Path) -> Any:
    features = data_of(world, str(out)).features("train")
    equal = [torch.equal(features[i], right) for i, right in enumerate(world.features)]
    return len(equal), all(equal)


def _files(world: World, out: Path) -> dict[str, str]:
    return tree(out)


def tree(folder: Path) -> dict[str, str]:
    """Return the digest of each visible file below a folder; of a link, where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and not path.name.startswith("."):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


FITS = (
    Job("fit, stage 1", _amdm, weights, again=_resumed(_amdm)),
    Job("fit, stage 2", _omiad, weights, again=_resumed(_omiad)),
)
"""Fits that write a checkpoint at their end and when they are interrupted."""

JOBS = (
    Job("fit, stage 1", _often(_amdm), weights, again=_resumed(_amdm)),
    Job("fit, stage 2", _often(_omiad), weights, again=_resumed(_omiad)),
    Job("test", _test, _figures, again=_test_again, done="results.json"),
    Job(
        "predict",
        lambda world, out: (
            f"predict {world.student} {world.data} --output={out} --batch_size=4 --device=cpu"
        ),
        _predictions,
        done="predictions.csv",
    ),
    Job(
        "report",
        lambda world, out: f"report {world.tested} --out {out} --pictures folder",
        _page,
        done="index.html",
    ),
    Job(
        "holdout",
        lambda world, out: f"data holdout {world.data} {out} --num_defective 12",
        _files,
        done=".",
    ),
    Job(
        "synthesize",
        lambda world, out: (
            f"data synthesize {out} --num_train 8 --num_test_good 2 --num_test_defective 4 "
            f"--image_size 48"
        ),
        _files,
        done=".",
    ),
    Job(
        "cache build",
        lambda world, out: (
            f"cache build {DATA} --data.root={world.data} --data.cache_dir={out} --device=cpu "
            f"--data.cache=all"
        ),
        _features,
    ),
)
"""Commands that are killed."""
