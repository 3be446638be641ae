"""Checkpoints with another structure, classes that run code, pickles that do, and flipped bits."""

import io
import math
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from world import QUIET, TRAINER, World, scores_in

from fuzz.cases import CANARY, INPUT, OUTPUT, Case, command
from fuzz.checks import finite_predictions, finite_results, finite_weights, same_weights
from fuzz.mutations import DEEP, KEEPING, Rng, copy_of, damaged, mutated, nodes, pick
from omiad.checkpoint import seal

SECTIONS = (
    *("hyper_parameters", "datamodule_hyper_parameters", "omiad", "omiad", "state_dict"),
    *("loops", "callbacks", "optimizer_states", ""),
)
"""Entries of a checkpoint, by how often they are mutated; "" is the checkpoint itself."""

STAGES = ("amdm", "omiad", "deciding")
"""Models: both stages, and stage 2 with thresholds, which no run resumes."""

SCORING = ("predict", "predict", "predict", "predict", "test")
DOORS = (*SCORING, "resume", "teacher")
"""Commands that read a checkpoint, by how often they are tried; training takes a second."""

CALLED = ("network", "optimizer", "generator_optimizer", "student_optimizer")
"""Hyperparameters that name what a resumed run calls."""

LIKELY = (
    *(*CALLED, "class_path", "_class_path", "_instantiator", "module", "detector"),
    *("teacher", "masking", "scoring", "code"),
)
"""Entries whose values name code or might."""

PATHS = ("class_path", "_class_path", "_instantiator", "module", "backbone")
"""Entries that are the path of a class alone."""

TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda x: torch.full_like(x, math.nan),
    lambda x: x * math.inf if x.is_floating_point() else -x,
    lambda x: x.double(),
    lambda x: x.half(),
    lambda x: x.to(torch.complex64),
    lambda x: x.bool(),
    lambda x: x.flatten()[:1],
    lambda x: x[None],
    lambda x: x.flatten()[:0],
    lambda x: torch.zeros(1).expand(10**9),
    lambda x: torch.empty(tuple(x.shape), device="meta"),
    lambda x: x.flatten()[None].to_sparse(),
    lambda x: x.tolist(),
    lambda x: None,
)
"""What may replace a tensor."""


def structure(world: World, rng: Rng, folder: Path) -> Case:
    """Delete, replace, shift, wrap, swap, rename, add or nest entries, or change a tensor.

    After half of the attacks, which only lose or move entries, a success must keep the scores.
    """
    stage = pick(rng, STAGES)
    checkpoint = _of_case(world, stage)
    keeps = bool(rng.random() < 0.5)
    section = pick(rng, SECTIONS)
    if section == "state_dict" and not keeps:
        state = checkpoint["state_dict"]
        ours = [name for name in state if name.startswith("detector.")]
        name = pick(rng, ours if rng.random() < 0.7 else list(state))
        state[name] = pick(rng, TENSORS)(state[name])
    else:
        changes = {"changes": KEEPING} if keeps else {}
        whole = {"it": checkpoint[section] if section else checkpoint}
        part = mutated(whole, rng, **changes)  # type: ignore[arg-type]
        if section:
            checkpoint[section] = part.get("it")
        else:
            checkpoint = part.get("it")
    save(checkpoint, folder / INPUT / "last.ckpt")
    exact = keeps and _moments(checkpoint) in (None, _moments(world.checkpoints[stage]))
    return _case(world, rng, stage, folder, exact=exact)


def _moments(checkpoint: Any) -> list[set[Any]] | None:
    """Return the parameters whose moments a checkpoint holds; one without a gradient has none."""
    try:
        return [{*each["state"]} for each in checkpoint["optimizer_states"]]
    except (KeyError, TypeError):
        return None


def classes(world: World, rng: Rng, folder: Path) -> Case:
    """Put a class, or a function with its arguments, where code might import and call it."""
    stage = pick(rng, STAGES)
    checkpoint = _of_case(world, stage)
    attacks = _attacks(folder)
    for _ in range(int(rng.choice([1, 1, 2]))):
        section = pick(rng, ("hyper_parameters", "datamodule_hyper_parameters", "omiad", ""))
        wanted = LIKELY
        if rng.random() < 0.5:
            section, wanted = "hyper_parameters", CALLED
        inside = checkpoint[section] if section else checkpoint
        parts = [part for part in nodes(inside) if part[1] not in checkpoint["state_dict"]]
        likely = [part for part in parts if part[1] in wanted]
        container, key = pick(rng, likely if likely and rng.random() < 0.8 else parts)
        attack = pick(rng, attacks[:4] if rng.random() < 0.5 else attacks)
        container[key] = attack["class_path"] if key in PATHS else copy_of(attack)
    if rng.random() < 0.2:
        checkpoint["callbacks"] = {attack["class_path"]: attack["init_args"]}
    save(checkpoint, folder / INPUT / "last.ckpt")
    return _case(world, rng, stage, folder, doors=(*DOORS, *("resume",) * 5, "teacher"))


def pickles(world: World, rng: Rng, folder: Path) -> Case:
    """Write a pickle that calls a function while it is read, in every container torch knows."""
    stage = pick(rng, STAGES)
    checkpoint = _of_case(world, stage)
    canary = str(folder / CANARY)
    calls = (
        (os.system, (f"touch {canary}",)),
        (subprocess.call, (["touch", canary],)),
        (eval, (f"open({canary!r}, 'w')",)),
        (exec, (f"open({canary!r}, 'w')",)),
        (open, (canary, "w")),
        (os.mkdir, (canary,)),
        (__import__, ("this",)),
        (torch.load, (canary,)),
    )
    function, arguments = pick(rng, calls)
    parts = [part for part in nodes(checkpoint) if part[1] not in checkpoint["state_dict"]]
    container, key = pick(rng, parts)
    container[key] = _Call(function, arguments)
    path = folder / INPUT / "last.ckpt"
    way = pick(rng, ("zip", "zip", "legacy", "pickle", "spliced"))
    if way == "zip":
        torch.save(checkpoint, path)
    elif way == "legacy":
        torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    elif way == "pickle":
        small = {key: value for key, value in checkpoint.items() if key != "state_dict"}
        small.pop("optimizer_states", None)
        path.write_bytes(pickle.dumps({**small, "x": container[key]}, int(rng.integers(6))))
    else:  # the payload before the honest pickle
        _splice(world.student, path, container[key])
    case = _case(world, rng, stage, folder)
    return replace(case, check=lambda: "accepted a pickle that calls a function", statuses=(2,))


def bits(world: World, rng: Rng, folder: Path) -> Case:
    """Damage bytes anywhere; a success must give the values of the undamaged file to the bit."""
    stage = pick(rng, STAGES)
    content = world.models[stage].read_bytes()
    (folder / INPUT / "last.ckpt").write_bytes(damaged(content, rng))
    return _case(world, rng, stage, folder, exact=True)


class _Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def _attacks(folder: Path) -> list[dict[str, Any]]:
    """Return class paths with arguments, the most direct first; each leaves a canary if called."""
    canary = str(folder / CANARY)
    calls: dict[str, dict[str, Any]] = {
        "os.system": {"command": f"touch {canary}"},
        "subprocess.Popen": {"args": ["touch", canary]},
        "os.mkdir": {"path": canary},
        "omiad.data.layouts.synthetic.synthesize": {"root": canary, "num_train": 1},
        "os.popen": {"cmd": f"touch {canary}"},
        "subprocess.run": {"args": ["touch", canary]},
        "builtins.exec": {"source": f"open({canary!r}, 'w')"},
        "builtins.open": {"file": canary, "mode": "w"},
        "shutil.rmtree": {"path": str(folder / INPUT)},
        "pathlib.Path.touch": {"self": canary},
        "importlib.import_module": {"name": "this"},
        "this.s": {},
        "antigravity.geohash": {},
        "torch.save": {"obj": 1, "f": canary},
        "torch.hub.load": {"repo_or_dir": "x/y", "model": "z"},
        "torch.load": {"f": canary, "weights_only": False},
        "numpy.save": {"file": canary, "arr": 1},
        "logging.FileHandler": {"filename": canary},
        "omiad.files.write_whole": {"path": canary, "content": "x"},
        "omiad.cli.main": {"args": ["data", "synthesize", canary, "--num_train", "1"]},
        "omiad.networks.protocol.import_module": {"name": "this"},
        "lightning.Trainer": {"default_root_dir": canary},
        "unknown_package.Network": {},
        "omiad.networks.UNet": {"width": 8, "extra": canary},
    }
    return [{"class_path": name, "init_args": arguments} for name, arguments in calls.items()]


def _of_case(world: World, stage: str) -> dict[str, Any]:
    """Return a copy of a checkpoint whose cache lies where the case may write."""
    checkpoint: dict[str, Any] = copy_of(world.checkpoints[stage])
    checkpoint["datamodule_hyper_parameters"]["cache_dir"] = f"{OUTPUT}/cache"
    return checkpoint


def save(checkpoint: Any, path: Path) -> None:
    """Write a checkpoint with a right digest, as an attacker would, if the digest can be made."""
    with suppress(Exception):  # without its own entries a checkpoint is refused anyway
        seal(checkpoint)
    try:
        torch.save(checkpoint, path)
    except RecursionError:  # the pickle of lists in lists that torch cannot write
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("last/data.pkl", b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".")
            archive.writestr("last/version", b"3\n")


def _splice(source: Path, target: Path, payload: _Call) -> None:
    """Copy a checkpoint with a payload whose result is dropped before its own pickle begins."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("data.pkl"):
                buffer = io.BytesIO()
                pickle.Pickler(buffer, 2).dump(payload)
                content = buffer.getvalue()[:-1] + b"0" + content[2:]
            new.writestr(item, content)


def _case(
    world: World,
    rng: Rng,
    stage: str,
    folder: Path,
    *,
    exact: bool = False,
    doors: tuple[str, ...] = DOORS,
) -> Case:
    """Return a case of one of the commands that read a checkpoint."""
    door, path = pick(rng, SCORING if stage == "deciding" else doors), f"{INPUT}/last.ckpt"
    out = folder / OUTPUT
    if door == "predict":
        words = f"predict {path} {world.photographs} --device cpu --overlays all"
        right = world.scores[stage]

        def check() -> str | None:
            if wrong := finite_predictions(out / "p", len(right)):
                return wrong
            is_same = not exact or scores_in(out / "p") == right
            return None if is_same else "other scores without a word"

        return Case(command(f"{words} --output {OUTPUT}/p"), check=check)
    cache = f"--data.cache_dir={OUTPUT}/cache" if rng.random() < 0.5 or exact else ""
    if door == "test":
        known_figures = world.figures[stage] if exact else None
        return Case(
            command(f"test --ckpt_path {path} --run_dir {OUTPUT}/t {QUIET} {cache}"),
            check=lambda: finite_results(out / "t" / "results.json", known_figures),
        )
    if door == "resume":
        trainer, known_path = f"{QUIET} --trainer.max_epochs=-1", world.resumed(stage)
        words = f"fit --ckpt_path {path} {trainer} --trainer.max_steps={world.more_steps(stage)}"
    else:
        known_path = world.student if stage == "amdm" else None
        words = f"fit --model=omiad.modules.OmiADModule --model.teacher={path} --data.batch_size=4"
        words += f" {TRAINER} --trainer.max_steps=6"
    result = out / "f" / "checkpoints" / "last.ckpt"
    if exact:
        return Case(
            command(f"{words} --run_dir {OUTPUT}/f {cache}"),
            check=lambda: same_weights(result, known_path),
        )
    return Case(
        command(f"{words} --run_dir {OUTPUT}/f {cache}"), check=lambda: finite_weights(result)
    )
