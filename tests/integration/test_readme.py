"""Commands, links and names in the documents are right, and messages are those they explain."""

import contextlib
import os
import re
import shlex
import shutil
from collections import namedtuple
from collections.abc import Iterator
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

FIRST = typed("README.md", "Stages one by one")
CHECKPOINT = "runs/my_parts/omiad/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user who has run everything under 'Stages one by one'."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "texts").mkdir()
    (folder / "texts" / "notes.txt").write_text("no photograph")
    write_mvtec(folder / "my_parts", np.random.default_rng(0), categories=["bolt", "washer"])
    shutil.copytree(folder / "my_parts" / "bolt" / "test", folder / "photos")
    shutil.copytree(folder / "my_parts", folder / "masks")
    Image.new("L", (8, 9), 255).save(folder / "masks/bolt/ground_truth/hole/000_mask.png")
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
        folder = home / "runs" / "my_parts" / kind
        assert (folder / "checkpoints" / "last.ckpt").is_file()
        assert {"config.yaml", "curves.png", "metrics.csv"} <= set(os.listdir(folder))
    assert (home / "runs" / "my_parts" / "test" / "results.json").is_file()
    assert (home / "report" / "index.html").is_file()
    assert len((home / "predictions" / "predictions.csv").read_text().splitlines()) == 1 + 6


def test_the_python_of_the_readme_runs(
    at_home: Path, deciding: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at_home / "model").mkdir(exist_ok=True)
    shutil.copy(deciding / "model.ckpt", at_home / "model")
    (code,) = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    exec(code, {})
    assert re.match(r"(ok|defect) bolt \d\.\d+ \d\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("line", sorted({line.text for line in lines()} - {*FIRST}))
def test_a_command_of_a_document_is_accepted(
    line: str, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse(line, at_home / CHECKPOINT, monkeypatch)


@pytest.mark.parametrize("span", named_in_prose())
def test_what_a_sentence_names_is_there(span: str) -> None:
    first, *rest = shlex.split(span)
    if first == "omiad":
        assert {rest[0], " ".join(rest[:2])} & {*COMMANDS, "COMMAND", "--help", "--version"}
    elif first == "make":
        assert commands_of_make(rest)
    elif first.startswith("ARGS="):
        experiments = yaml.safe_load((CHECKOUT / "tests/benchmarks/experiments.yaml").read_text())
        assert {*first.partition("--only ")[2].split()} <= {*experiments}
    else:
        assert list(CHECKOUT.glob(first))


def anchors(document: Path) -> set[str]:
    """Return the headings of a document as GitHub names them in links."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_a_link_between_documents_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https)([^)]+)\)", path.read_text().replace("\n", " ")):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_function_in_the_table_of_equations_exists() -> None:
    text = (CHECKOUT / "omiad/README.md").read_text()
    names = re.findall(r"^\| [\d, ]+ \| `(.*)\.(.*?)` \|", text, flags=re.MULTILINE)
    assert len(names) >= 10
    for module, function in names:
        assert hasattr(import_module(f"omiad.{module}"), function), function


def test_the_readme_stays_short() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 250


AMDM = "fit --config amdm_folder --data.root my_parts/"
OMIAD = "fit --config omiad_folder --data.root my_parts/ --model.teacher"
TEACHER = "runs/my_parts/amdm/checkpoints/last.ckpt"
SMALL = f"{AMDM} {STAGE_1}"
PREDICT = f"predict {CHECKPOINT} photos"

LISTING = "omiad.prediction.command.find_photographs"

CAUSES = {
    "No layout fits": "data check --data.root texts",
    "pretrained weights": f"{AMDM} {TINY} --data.backbone=test_efficientnet "
    "--data.weights=pretrained",
    "feature cache needs": f"{SMALL} --data.cache_dir=full",
    "feature cache:": f"{SMALL} --data.cache_dir=new",
    "memory ran out": PREDICT,
    "No supported gpu": f"{SMALL} --trainer.accelerator=gpu",
    "--trainer.precision": f"{SMALL} --trainer.precision=bf16-true",
    "training loss": f"{SMALL} --trainer.max_steps=9 --model.optimizer=torch.optim.SGD "
    "--model.optimizer.lr=1e30 --model.gradient_clip=1e30",
    "noise-to-signal ratio": f"{SMALL} --model.t_init=1000",
    "mask": f"test --ckpt_path {CHECKPOINT} --data.root masks --trainer.accelerator=cpu",
    "model.teacher": f"{OMIAD} {CHECKPOINT} {STAGE_2}",
    "--data.…": f"{OMIAD} {TEACHER} {STAGE_2} --data.feature_size=4",
    "'…' already holds": f"{SMALL} --run_dir=runs/my_parts/amdm",
    "batch_size": "fit --ckpt_path half/checkpoints/last.ckpt --data.batch_size=4 "
    "--trainer.max_steps=3 --trainer.accelerator=cpu",
}
"""How each message in the support document begins, and a command that causes it."""

SLOW = {"mask", "batch_size", "model.teacher", "feature cache:", "noise-to-signal ratio"}
MESSAGES = re.findall(
    r"^\| `(.*?)` \| ", (CHECKOUT / ".github/SUPPORT.md").read_text(), flags=re.MULTILINE
)


@pytest.mark.parametrize(
    "message",
    [pytest.param(m, marks=[pytest.mark.slow] * m.startswith((*SLOW,))) for m in MESSAGES],
)
def test_omiad_prints_what_the_support_document_explains(
    message: str,
    at_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (cause,) = (cause for start, cause in CAUSES.items() if message.startswith(start))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(at_home / "hub"))
    monkeypatch.setattr(LISTING, lambda given: torch.empty(2**58))
    if "cache_dir=full" in cause:
        usage = namedtuple("usage", "total used free")(100, 99, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    if "accelerator=gpu" in cause and (
        torch.cuda.is_available() or torch.backends.mps.is_available()
    ):
        pytest.skip("there is a GPU here")
    if "half/" in cause:
        main(shlex.split(f"{SMALL} --data.batch_size=2 --run_dir=half"))
    capfd.readouterr()
    with contextlib.suppress(SystemExit):
        main(shlex.split(cause))
    output = " ".join(" ".join(capfd.readouterr()).split())
    assert re.search(re.escape(message).replace("…", ".*?"), output, re.IGNORECASE), output


def test_an_error_of_the_program_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LISTING, lambda given: torch.empty(2).view(3))
    with pytest.raises(RuntimeError, match="shape"):
        main(shlex.split(PREDICT))
