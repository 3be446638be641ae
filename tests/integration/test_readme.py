"""What the README tells users to type runs, and what it says omiad prints is printed."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from readme import CHECKOUT, STAGE_1, STAGE_2, TINY, named_in_prose, run, section, typed_lines
from synthetic import write_mvtec

from omiad.cli import COMMANDS, main

AMDM = "fit --config configs/amdm_folder.yaml --data.root my_parts/"
OMIAD = "fit --config configs/omiad_folder.yaml --data.root my_parts/"
TEACHER = "--model.teacher runs/amdm/version_0/checkpoints/last.ckpt"


def promised_sentences() -> list[str]:
    return re.findall(r"^\| `(.*?)` \| ", section("Troubleshooting"), flags=re.MULTILINE)


SENTENCES = promised_sentences()
MEASURING = typed_lines("Measuring any method")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user who has run all that 'Your own photographs' says."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "configs").symlink_to(Path("configs").resolve())
    write_mvtec(folder / "my_parts", np.random.default_rng(0), categories=["bolt", "washer"])
    shutil.copytree(folder / "my_parts" / "bolt" / "test", folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        for line in typed_lines("Your own photographs"):
            run(line, patch)
        yield folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return home


def test_ones_own_photographs_are_trained_on_tested_and_scored(home: Path) -> None:
    for kind in ("amdm", "omiad"):
        run = home / "runs" / kind / "version_0"
        assert (run / "checkpoints" / "last.ckpt").is_file()
        assert {"config.yaml", "curves.png", "metrics.csv"} <= set(os.listdir(run))
    assert (home / "runs" / "test" / "version_0" / "results.json").is_file()
    tables = list(home.rglob("predictions.csv"))
    assert [len(table.read_text().splitlines()) for table in tables] == [1 + 6]


@pytest.mark.parametrize("line", typed_lines("Troubleshooting"))
def test_a_command_of_the_troubleshooting_section_runs(
    line: str, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(line, monkeypatch)


def test_any_method_is_measured_and_reported(
    at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves_maps, *rest = MEASURING
    run(f"{saves_maps} --run_dir=another_run", monkeypatch)
    shutil.copytree("another_run/maps", "my_method")
    for line in (*rest, *typed_lines("A report")):
        run(line, monkeypatch)
    assert (at_home / "report" / "index.html").is_file()


@pytest.mark.parametrize("span", named_in_prose())
def test_what_a_sentence_names_is_there(span: str) -> None:
    first, *rest = shlex.split(span)
    if first == "omiad":
        assert {rest[0], " ".join(rest[:2]), "--help"} & {*COMMANDS, *rest}
    elif first == "make":
        dry = ["make", "--dry-run", "--old-file=.venv/bin/omiad", f"--file={CHECKOUT}/Makefile"]
        subprocess.run([*dry, *rest], check=True, capture_output=True)
    elif first.startswith("ARGS="):
        experiments = yaml.safe_load((CHECKOUT / "tests/benchmarks/experiments.yaml").read_text())
        _, _, names = first.partition("--only ")
        assert names.split()
        assert {*names.split()} <= {*experiments}
    else:
        assert list(CHECKOUT.glob(first))


Trigger = Callable[[Path, pytest.MonkeyPatch], str]
TRIGGERS: dict[str, Trigger] = {}


def says(sentence: str) -> Callable[[Trigger], Trigger]:
    def register(trigger: Trigger) -> Trigger:
        TRIGGERS[sentence] = trigger
        return trigger

    return register


@says("No layout fits")
def wrong_root(home: Path, patch: pytest.MonkeyPatch) -> str:
    (home / "empty" / "bolt" / "photos" / "new").mkdir(parents=True)
    return "data check --data.root empty"


@says("The pretrained weights")
def no_network(home: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))
    return f"{AMDM} {TINY} --data.backbone=test_efficientnet"


@says("The feature cache needs")
def full_disk(home: Path, patch: pytest.MonkeyPatch) -> str:
    usage = namedtuple("usage", "total used free")(100, 99, 1)
    patch.setattr(shutil, "disk_usage", lambda path: usage)
    return f"{AMDM} {STAGE_1} --data.cache_dir=full"


@says("feature cache:")
def first_run(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --data.cache_dir=new"


@says("The memory ran out")
def too_much(home: Path, patch: pytest.MonkeyPatch) -> str:
    patch.setattr("omiad.demo.demo", lambda: torch.empty(2**58))
    return "demo"


@says("No supported gpu")
def no_gpu(home: Path, patch: pytest.MonkeyPatch) -> str:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    return f"{AMDM} {STAGE_1} --trainer.accelerator=gpu"


@says("… is trained in")
def half_precision(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --trainer.precision=bf16-true"


@says("The training loss")
def far_too_fast(home: Path, patch: pytest.MonkeyPatch) -> str:
    return (
        f"{AMDM} {STAGE_1} --trainer.max_steps=9 --model.optimizer=torch.optim.SGD "
        f"--model.optimizer.lr=1e30 --model.gradient_clip=1e30"
    )


@says("The noise-to-signal ratio")
def buried(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --model.t_init=1000"


@says("The mask")
def small_mask(home: Path, patch: pytest.MonkeyPatch) -> str:
    shutil.copytree(home / "my_parts", home / "masks")
    Image.new("L", (8, 9), 255).save(home / "masks/bolt/ground_truth/hole/000_mask.png")
    checkpoint = "runs/omiad/version_0/checkpoints/last.ckpt"
    return f"test --ckpt_path {checkpoint} --data.root masks --trainer.accelerator=cpu"


@says("model.teacher")
def student_as_teacher(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{OMIAD} {STAGE_2} {TEACHER.replace('amdm', 'omiad')}"


@says("--data.…")
def another_grid(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{OMIAD} {TEACHER} {STAGE_2} --data.feature_size=4"


@says("'…' already holds")
def second_run(home: Path, patch: pytest.MonkeyPatch) -> str:
    return f"{AMDM} {STAGE_1} --run_dir=runs/amdm/version_0"


@says("The checkpoint was")
def other_batches(home: Path, patch: pytest.MonkeyPatch) -> str:
    main(shlex.split(f"{AMDM} {STAGE_1} --data.batch_size=2 --run_dir=half"))
    options = "--data.batch_size=4 --trainer.max_steps=3 --trainer.accelerator=cpu"
    return f"fit --ckpt_path half/checkpoints/last.ckpt {options}"


@pytest.mark.parametrize("sentence", SENTENCES)
def test_omiad_says_what_the_readme_promises(
    sentence: str,
    at_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (trigger,) = (t for start, t in TRIGGERS.items() if sentence.startswith(start))
    arguments = shlex.split(trigger(at_home, monkeypatch))
    capfd.readouterr()
    with contextlib.suppress(SystemExit):
        main(arguments)
    printed = " ".join(" ".join(capfd.readouterr()).split())
    assert re.search(re.escape(sentence).replace("…", ".+?"), printed), printed


def test_an_error_of_the_program_itself_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("omiad.demo.demo", lambda: torch.empty(2).view(3))
    with pytest.raises(RuntimeError, match="shape"):
        main(["demo"])


def test_every_sentence_has_its_trigger() -> None:
    assert len(SENTENCES) == len(TRIGGERS) >= 10
