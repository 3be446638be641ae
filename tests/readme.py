"""The README's command lines, and the sizes at which a test can afford them."""

import os
import re
import runpy
import shlex
import subprocess
from pathlib import Path

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


def section(title: str) -> str:
    text = (CHECKOUT / "README.md").read_text()
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def titles() -> list[str]:
    return re.findall(r"^## (.*)$", (CHECKOUT / "README.md").read_text(), flags=re.MULTILINE)


def typed_lines(title: str) -> list[str]:
    """Return what a section tells its readers to type."""
    blocks = re.findall(r"```bash\n(.*?)```", section(title), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def named_in_prose() -> list[str]:
    """Return the commands and files of this checkout that stand within sentences."""
    text = re.sub(r"```.*?```", "", (CHECKOUT / "README.md").read_text(), flags=re.DOTALL)
    spans = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)}
    starts = ("omiad ", "make ", "tests/", "configs/", "ARGS=")
    return sorted(span for span in spans if span.startswith(starts))


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a line that a user would type here, at a size that a test can afford."""
    program, *arguments = shlex.split(line)
    if program == "make":
        dry = ["make", "--dry-run", "--old-file=.venv/bin/omiad", f"--file={CHECKOUT}/Makefile"]
        environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
        said = subprocess.run(
            [*dry, *arguments], check=True, capture_output=True, text=True, env=environment
        )
        run(said.stdout.replace(".venv/bin/", ""), monkeypatch)
    elif program == "python":
        script, *rest = arguments
        sizes = shlex.split(PATCHES) if Path(script).name == "memory_bank.py" else []
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", [script, *rest, *sizes])  # the last of an option counts
            runpy.run_path(str(CHECKOUT / script), run_name="__main__")
    else:
        assert program == "omiad"
        main(_small(arguments))


def _small(arguments: list[str]) -> list[str]:
    command = arguments[0]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    if command in ("sweep", "table"):
        return _small_sweep(arguments)
    if arguments[:2] == ["cache", "build"]:
        return [*arguments, *shlex.split(BACKBONE), "--data.image_size=32", "--data.feature_size=8"]
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
