"""The commands, links and names in the documents are right, and omiad prints what they promise."""

import contextlib
import os
import re
import shlex
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from readme import (
    CHECKOUT,
    DOCUMENTS,
    STAGE_1,
    STAGE_2,
    TINY,
    commands_of_make,
    lines,
    named_in_prose,
    parse,
    run,
    typed,
)
from synthetic import write_mvtec

from omiad.cli import COMMANDS, main

FIRST = typed("README.md", "Your own photographs")
AMDM = "fit --config configs/amdm_folder.yaml --data.root my_parts/"
OMIAD = "fit --config configs/omiad_folder.yaml --data.root my_parts/"
TEACHER = "--model.teacher runs/amdm/version_0/checkpoints/last.ckpt"
CHECKPOINT = "runs/omiad/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user who has run everything under 'Your own photographs'."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "configs").symlink_to(CHECKOUT / "configs")
    write_mvtec(folder / "my_parts", np.random.default_rng(0), categories=["bolt", "washer"])
    shutil.copytree(folder / "my_parts" / "bolt" / "test", folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        for line in FIRST:
            run(line, patch)
        yield folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def test_your_own_photographs_are_trained_on_tested_scored_and_reported(home: Path) -> None:
    for kind in ("amdm", "omiad"):
        folder = home / "runs" / kind / "version_0"
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        assert {"config.yaml", "curves.png", "metrics.csv"} <= set(os.listdir(folder))
    assert (home / "runs" / "test" / "version_0" / "results.json").is_file()
    assert (home / "report" / "index.html").is_file()
    tables = list(home.rglob("predictions.csv"))
    assert [len(table.read_text().splitlines()) for table in tables] == [1 + 6]


def test_the_python_of_the_readme_runs(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert "tensor" in capsys.readouterr().out


@pytest.mark.parametrize("line", sorted({line.text for line in lines()} - {*FIRST}))
def test_a_command_of_a_document_is_accepted(
    line: str, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse(line, at_home / CHECKPOINT, monkeypatch)


@pytest.mark.parametrize("span", named_in_prose())
def test_what_a_sentence_names_is_there(span: str) -> None:
    first, *rest = shlex.split(span)
    if first == "omiad":
        assert {rest[0], " ".join(rest[:2])} & {*COMMANDS, "--help", "--version"}
    elif first == "make":
        assert commands_of_make(rest)
    elif first.startswith("ARGS="):
        experiments = yaml.safe_load((CHECKOUT / "tests/benchmarks/experiments.yaml").read_text())
        _, _, names = first.partition("--only ")
        assert {*names.split()} <= {*experiments}
    else:
        assert list(CHECKOUT.glob(first))


def anchors(document: Path) -> set[str]:
    """Return the headings of a document as GitHub names them in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_link_between_documents_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", " ".join(path.read_text().split("\n"))):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_function_in_the_table_of_equations_exists() -> None:
    text = (CHECKOUT / "omiad/README.md").read_text()
    names = re.findall(r"^\| [\d, ]+ \| `(.*?)` \|", text, flags=re.MULTILINE)
    assert len(names) >= 10
    for name in names:
        module, _, function = name.rpartition(".")
        assert hasattr(import_module(f"omiad.{module}"), function), name


def test_the_readme_stays_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize("path", sorted(CHECKOUT.glob("configs/*.yaml")), ids=lambda p: p.stem)
def test_the_header_of_a_configuration_stays_short(path: Path) -> None:
    assert sum(line.startswith("#") for line in path.read_text().splitlines()) <= 12


Trigger = Callable[[Path, pytest.MonkeyPatch], str]
TRIGGERS: dict[str, Trigger] = {}
SLOW = {"mask", "batch_size", "model.teacher", "feature cache:", "noise-to-signal ratio"}
"""Triggers that need a whole run or several."""


def printed(start: str) -> Callable[[Trigger], Trigger]:
    """Register what makes omiad print the message that starts so in the support document."""

    def register(trigger: Trigger) -> Trigger:
        TRIGGERS[start] = trigger
        return trigger

    return register


@printed("No layout fits")
def wrong_root(home: Path, patch: pytest.MonkeyPatch) -> str:
    (home / "empty" / "bolt" / "photos" / "new").mkdir(parents=True)
    return "data check --data.root empty"


@printed("pretrained weights")
def no_network(home: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    return f"{AMDM} {TINY} --data.backbone=test_efficientnet"


@printed("feature cache needs")
def full_disk(home: Path, patch: pytest.MonkeyPatch) -> str:
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    patch.setattr(shutil, "disk_usage", lambda path: usage)
    return f"{AMDM} {STAGE_1} --data.cache_dir=full"


@printed("feature cache:")
def first_run(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --data.cache_dir=new"


@printed("memory ran out")
def too_much(home: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setitem(COMMANDS, "exhaust", lambda args: torch.empty(2**58))
    return "exhaust"


@printed("No supported gpu")
def no_gpu(home: Path, patch: pytest.MonkeyPatch) -> str:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    return f"{AMDM} {STAGE_1} --trainer.accelerator=gpu"


@printed("--trainer.precision")
def half_precision(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --trainer.precision=bf16-true"


@printed("training loss")
def far_too_fast(home: Path, patch: pytest.MonkeyPatch) -> str:
    return (
        f"{AMDM} {STAGE_1} --trainer.max_steps=9 --model.optimizer=torch.optim.SGD "
        f"--model.optimizer.lr=1e30 --model.gradient_clip=1e30"
    )


@printed("noise-to-signal ratio")
def buried(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --model.t_init=1000"


@printed("mask")
def small_mask(home: Path, patch: pytest.MonkeyPatch) -> str:
    shutil.copytree(home / "my_parts", home / "masks")
    Image.new("L", (8, 9), 255).save(home / "masks/bolt/ground_truth/hole/000_mask.png")
    return f"test --ckpt_path {CHECKPOINT} --data.root masks --trainer.accelerator=cpu"


@printed("model.teacher")
def student_as_teacher(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{OMIAD} {STAGE_2} {TEACHER.replace('amdm', 'omiad')}"


@printed("--data.…")
def another_grid(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{OMIAD} {TEACHER} {STAGE_2} --data.feature_size=4"


@printed("'…' already holds")
def second_run(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --run_dir=runs/amdm/version_0"


@printed("batch_size")
def other_batches(home: Path, patch: pytest.MonkeyPatch) -> str:
    main(shlex.split(f"{AMDM} {STAGE_1} --data.batch_size=2 --run_dir=half"))
    options = "--data.batch_size=4 --trainer.max_steps=3 --trainer.accelerator=cpu"
    return f"fit --ckpt_path half/checkpoints/last.ckpt {options}"


SUPPORT = (CHECKOUT / ".github/SUPPORT.md").read_text()
MESSAGES = re.findall(r"^\| `(.*?)` \| ", SUPPORT, flags=re.MULTILINE)


def test_every_message_has_its_trigger() -> None:
    assert len(MESSAGES) == len(TRIGGERS)
    for message in MESSAGES:
        assert sum(message.startswith(start) for start in TRIGGERS) == 1, message


@pytest.mark.parametrize(
    "start", [pytest.param(s, marks=[pytest.mark.slow] * (s in SLOW)) for s in TRIGGERS]
)
def test_omiad_prints_what_the_support_document_explains(
    start: str,
    at_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (message,) = (message for message in MESSAGES if message.startswith(start))
    arguments = shlex.split(TRIGGERS[start](at_home, monkeypatch))
    capfd.readouterr()
    with contextlib.suppress(SystemExit):
        main(arguments)
    output = " ".join(" ".join(capfd.readouterr()).split())
    assert re.search(re.escape(message).replace("…", ".*?"), output, re.IGNORECASE), output


def test_an_error_of_the_program_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(COMMANDS, "break", lambda args: torch.empty(2).view(3))
    with pytest.raises(RuntimeError, match="shape"):
        main(["break"])
