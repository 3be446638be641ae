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


class Line(NamedTuple):
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
                yield from (Line(name, heading, line) for line in block.splitlines() if line)


def typed(document: str, heading: str) -> list[str]:
    """Return the lines to type under one heading."""
    return [line.text for line in lines() if line[:2] == (document, heading)]


def named_in_prose() -> list[str]:
    """Return the commands and files of this checkout that sentences name."""
    texts = [re.sub(r"```.*?```", "", p.read_text(), flags=re.DOTALL) for p in DOCUMENTS]
    spans = {" ".join(span.split()) for text in texts for span in re.findall(r"`([^`]+)`", text)}
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


class _ParsedError(Exception):
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
    if program not in ("omiad", "python"):
        return
    for name in arguments:
        if name.endswith(".ckpt") and not Path(name).exists():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint, name)
    running: list[Any] = []  # a parser may call others

    def stopping(parse_args: Any) -> Any:
        def parse_and_stop(*args: Any, **kwargs: Any) -> Any:
            running.append(parse_args)
            try:
                parsed = parse_args(*args, **kwargs)
            finally:
                running.pop()
            if running:
                return parsed
            raise _ParsedError

        return parse_and_stop

    with monkeypatch.context() as patch:
        for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
            patch.setattr(parser, "parse_args", stopping(parser.parse_args))
        with pytest.raises(_ParsedError):
            _start(program, arguments, patch)


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line that a user would type here, at a size that a test can afford."""
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        for command in commands_of_make(arguments):
            run(command, monkeypatch)
    else:
        with monkeypatch.context() as patch:
            _start(program, _small(arguments), patch)


def _start(program: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    if program == "omiad":
        main(arguments)
    else:
        patch.setattr("sys.argv", arguments)
        runpy.run_path(str(CHECKOUT / arguments[0]), run_name="__main__")


def _small(arguments: list[str]) -> list[str]:
    """Add options that make a command small; the last of an option counts."""
    command = arguments[0]
    more = ""
    if command in ("sweep", "table"):
        return _small_sweep(arguments)
    if command.endswith("memory_bank.py"):
        more = PATCHES
    elif arguments[:2] == ["cache", "build"]:
        more = f"{BACKBONE} {SIZES}"
    elif command == "evaluate":
        more = "--image_size=32"
    elif "--model.detector" in arguments:
        more = f"{TRAINED} --trainer.max_steps=2"
    elif command == "fit" and "--ckpt_path" not in arguments:
        more = STAGE_2 if "--model.teacher" in arguments else STAGE_1
    elif command in ("fit", "test"):
        more = "--trainer.accelerator=cpu --trainer.enable_progress_bar=false"
    return [*arguments, *shlex.split(more)]


def _small_sweep(arguments: list[str]) -> list[str]:
    sizes = [f"--options={TRAINED} --trainer.max_steps=4"]
    if "--teacher_options" in arguments:
        at = arguments.index("--teacher_options")
        arguments, given = [*arguments[:at], *arguments[at + 2 :]], arguments[at + 1]
    else:
        given = ""
    teacher = f"--teacher_options={given} {BACKBONE} {SIZES} {NETWORK}"
    return [*arguments, *sizes, teacher] if {"--root", "sweep"} & {*arguments} else arguments
