"""The documents and their command lines, and the sizes at which a test can afford these."""

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import pytest

from omiad.cli import main

SIZES = "--data.image_size=32 --data.feature_size=8"
TRAINED = (
    "--trainer.accelerator=cpu --trainer.precision=32-true --trainer.enable_progress_bar=false "
    "--trainer.log_every_n_steps=1"
)
TINY = f"{SIZES} {TRAINED}"
BACKBONE = "--data.backbone=test_efficientnet --data.weights=random"
NETWORK = "--model.network=omiad.networks.unet_tiny"
STAGE_1 = f"{BACKBONE} {TINY} {NETWORK} --trainer.max_steps=2"
STAGE_2 = f"{TINY} --trainer.max_steps=4"
PATCHES = "--backbone=test_efficientnet --weights=random --image_size=32 --feature_size=8"

CHECKOUT = Path(__file__).parents[1]
PLACES = (".", ".github", "configs", "omiad", "omiad/*", "tests/benchmarks")
DOCUMENTS = sorted(path for place in PLACES for path in CHECKOUT.glob(f"{place}/*.md"))

DEVELOPMENT = {"pytest", "ruff", "mypy", "lint-imports"}
"""Programs that the Makefile runs and that are not this project's."""


class Line(NamedTuple):
    """A line to type, and where it is: the document's path and the heading above the line."""

    document: str
    heading: str
    text: str


def lines() -> Iterator[Line]:
    """Find everything that the documents ask their readers to type."""
    for path in DOCUMENTS:
        for part in re.split(r"^#+ ", path.read_text(), flags=re.MULTILINE)[1:]:
            heading, _, text = part.partition("\n")
            for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
                name = path.relative_to(CHECKOUT).as_posix()
                yield from (Line(name, heading, typed) for typed in block.splitlines() if typed)


def typed(document: str, heading: str) -> list[str]:
    """Return the lines to type under one heading."""
    return [line.text for line in lines() if line[:2] == (document, heading)]


def named_in_prose() -> list[str]:
    """Return the commands and files of this checkout that sentences name."""
    spans: set[str] = set()
    for path in DOCUMENTS:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        spans |= {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)}
    starts = ("omiad ", "make ", "tests/", "configs/", "omiad/", "ARGS=")
    return sorted(span for span in spans if span.startswith(starts))


def commands_of_make(arguments: list[str]) -> list[str]:
    """Return what a target would run."""
    dry = ["make", "--dry-run", "--old-file=.venv/bin/omiad", f"--file={CHECKOUT}/Makefile"]
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    printed = subprocess.run(
        [*dry, *arguments], check=True, capture_output=True, text=True, env=environment
    )
    return printed.stdout.replace(".venv/bin/", "").splitlines()


class _Parsed(BaseException):
    """The arguments of a command were accepted."""


def parse(line: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse a line as its program does, and stop there.

    Args:
        line: What a user would type.
        checkpoint: Stands for each checkpoint that the line names and that does not exist.
        monkeypatch: Of the test.
    """
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        for command in commands_of_make(arguments):
            parse(command, checkpoint, monkeypatch)
        return
    if program in DEVELOPMENT:
        return
    for name in arguments:
        if name.endswith(".ckpt") and not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint, name)
    with monkeypatch.context() as patch:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(parser, "parse_args", _stopping(parser.parse_args))
        with pytest.raises(_Parsed):
            _start(program, arguments, patch)


def _stopping(parse_args: Any) -> Any:
    def parse_and_stop(*args: Any, **kwargs: Any) -> None:
        parse_args(*args, **kwargs)
        raise _Parsed

    return parse_and_stop


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line that a user would type here, at a size that a test can afford."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        for command in commands_of_make(arguments):
            run(command, monkeypatch)
    elif program == "omiad":
        _start(program, _small(arguments), monkeypatch)
    else:
        sizes = shlex.split(PATCHES) if "memory_bank.py" in arguments[0] else []
        with monkeypatch.context() as patch:
            _start(program, [*arguments, *sizes], patch)  # the last of an option counts


def _start(program: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    if program == "omiad":
        main(arguments)
    else:
        assert program == "python"
        patch.setattr("sys.argv", arguments)
        runpy.run_path(str(CHECKOUT / arguments[0]), run_name="__main__")


def _small(arguments: list[str]) -> list[str]:
    command = arguments[0]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    if command in ("sweep", "table"):
        return _small_sweep(arguments)
    if arguments[:2] == ["cache", "build"]:
        return [*arguments, *shlex.split(f"{BACKBONE} {SIZES}")]
    if command == "evaluate":
        return [*arguments, "--image_size=32"]
    if "--model.detector" in arguments:
        return [*arguments, *shlex.split(TRAINED), "--trainer.max_steps=2"]
    if command == "fit" and "--ckpt_path" not in arguments:
        return [*arguments, *shlex.split(STAGE_2 if "--model.teacher" in arguments else STAGE_1)]
    return [*arguments, *quiet] if command in ("fit", "test") else arguments


def _small_sweep(arguments: list[str]) -> list[str]:
    sizes = [f"--options={TRAINED} --trainer.max_steps=4"]
    if "--teacher_options" in arguments:
        at = arguments.index("--teacher_options")
        arguments, given = [*arguments[:at], *arguments[at + 2 :]], arguments[at + 1]
    else:
        given = ""
    teacher = f"--teacher_options={given} {BACKBONE} {SIZES} {NETWORK}"
    return [*arguments, *sizes, teacher] if {"--root", "sweep"} & {*arguments} else arguments
