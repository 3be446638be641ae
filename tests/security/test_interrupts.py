"""Signals at chosen moments: the run stops between two batches, and resumes to the last bit."""

import csv
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger
from tiny import amdm, data_of, trainer_of

from omiad import OmiADModule
from omiad.callbacks import LastCheckpoint
from omiad.checkpoint import write_checkpoint
from omiad.cli import main
from omiad.errors import InputError
from omiad.interrupts import STOPPING, Interrupted, StopRequests, is_lost_process
from omiad.modules import TrainingModule

STEPS = {"AMDM": 5, "OmiAD": 9}
"""8 images in batches of 4 are two batches in an epoch; one batch of psi alone comes first."""


TINY = (
    "--trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--data.backbone=test_efficientnet.r160_in1k --data.weights=random --data.image_size=32 "
    "--data.feature_size=8 --data.batch_size=2 --model=omiad.modules.AMDMModule "
    "--model.network=omiad.networks.UNet --model.network.width=8 "
    "--model.network.multipliers=[1,2] --model.network.num_blocks=1 "
    "--model.network.attention_factors=[2] --model.t_init=500"
)


class SignalAt(Callback):
    """Send a signal when a hook is called for the n-th time, counted from 0."""

    def __init__(self, hook: str, n: int, number: int = signal.SIGINT) -> None:
        calls = itertools.count()

        def send(*_: object, **__: object) -> None:
            if next(calls) == n:
                signal.raise_signal(number)

        setattr(self, hook, send)


class Runs:
    """Runs of both stages in one folder, and what they left."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.data = partial(data_of, root, folder)
        self.folder = folder
        self.whole: dict[str, Any] = {}

    def fit(
        self,
        stage: str,
        name: str,
        *callbacks: Callback,
        ckpt_path: Path | None = None,
        every_n_steps: int = 1000,
        **options: Any,
    ) -> Path:
        teacher = self.folder / "teacher/checkpoints/last.ckpt"
        module = amdm() if stage == "AMDM" else OmiADModule(str(teacher))
        trainer = trainer_of(
            self.folder / name,
            options.pop("max_steps", STEPS[stage]),
            callbacks=[*callbacks, LastCheckpoint(every_n_steps)],
            **options,
        )
        trainer.loggers = [CSVLogger(self.folder / name, name="", version="")]
        trainer.log_every_n_steps = 2  # type: ignore[attr-defined]
        trainer.fit(module, datamodule=self.data(), ckpt_path=ckpt_path)
        return self.folder / name / "checkpoints/last.ckpt"

    def interrupted(self, stage: str, name: str, *callbacks: Callback, **resumed: Any) -> Path:
        with pytest.raises(Interrupted) as stopped:
            self.fit(stage, name, *callbacks, **resumed)
        assert stopped.value.code in (130, 143)
        return self.folder / name / "checkpoints/last.ckpt"

    def uninterrupted(self, stage: str) -> tuple[dict[str, Any], list[dict[str, str]]]:
        if stage not in self.whole:
            checkpoint = contents(self.fit(stage, f"whole_{stage}"))
            self.whole[stage] = checkpoint, rows(self.folder / f"whole_{stage}")
        return self.whole[stage]


def contents(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def rows(*runs: Path) -> list[dict[str, str]]:
    """Return the filled cells of the rows of metrics.csv of all parts of a run."""
    tables = [(run / "metrics.csv").read_text() for run in runs if (run / "metrics.csv").is_file()]
    found = [row for table in tables for row in csv.DictReader(table.splitlines())]
    return [{name: cell for name, cell in row.items() if cell} for row in found]


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Return the places in which two checkpoints differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return differences(dict(enumerate(a)), dict(enumerate(b)), place)
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if equal else [place]


@pytest.fixture(scope="module")
def runs(mvtec_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs(mvtec_root, tmp_path_factory.mktemp("runs"))
    runs.fit("AMDM", "teacher")
    return runs


MOMENTS = [
    ("on_train_batch_start", 0, signal.SIGINT),  # before the first batch
    ("on_before_optimizer_step", 2, signal.SIGINT),  # in stage 2 between psi and theta
    ("on_before_optimizer_step", 3, signal.SIGTERM),  # in stage 1 in the last batch of an epoch
    ("on_train_epoch_end", 0, signal.SIGTERM),
    ("on_save_checkpoint", 0, signal.SIGTERM),  # while a checkpoint is written
]
SELDOM = [("OmiAD", *moment) for moment in (MOMENTS[0], *MOMENTS[2:])]


@pytest.mark.parametrize(
    ("stage", "hook", "n", "number"),
    [
        *(("AMDM", *moment) for moment in MOMENTS),
        ("OmiAD", *MOMENTS[1]),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SELDOM),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_bit(
    runs: Runs, tmp_path: Path, stage: str, hook: str, n: int, number: int
) -> None:
    whole, table = runs.uninterrupted(stage)
    part = runs.interrupted(stage, f"{tmp_path}/part", SignalAt(hook, n, number))
    end = runs.fit(stage, f"{tmp_path}/end", ckpt_path=part)
    assert contents(part)["global_step"] < STEPS[stage] or hook == "on_save_checkpoint"
    assert differences(whole, contents(end)) == []
    assert rows(tmp_path / "part", tmp_path / "end") == table


HOOKS = ("on_train_batch_start", "on_before_backward", "on_before_zero_grad", "on_train_batch_end")
HOOKS += ("on_before_optimizer_step", "on_train_epoch_start", "on_train_epoch_end", "on_train_end")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STEPS)
def test_forty_random_moments_resume_to_the_last_bit(
    runs: Runs, tmp_path: Path, stage: str
) -> None:
    whole, table = runs.uninterrupted(stage)
    rng, unlike, stopped = np.random.default_rng(0), [], 0
    while stopped < 40:
        moment = str(rng.choice(HOOKS)), int(rng.integers(5)), int(rng.choice(STOPPING))
        part, end = (f"{tmp_path}/{name}_{'_'.join(map(str, moment))}" for name in ("part", "end"))
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(end, ignore_errors=True)
        try:
            runs.fit(stage, part, SignalAt(*moment))
        except Interrupted:
            stopped += 1
            runs.fit(stage, end, ckpt_path=Path(part, "checkpoints/last.ckpt"))
            found = differences(whole, contents(Path(end, "checkpoints/last.ckpt")))
            unlike += [(moment, found)] if found or rows(Path(part), Path(end)) != table else []
    assert unlike == []


def test_a_run_that_is_interrupted_twice_equals_an_uninterrupted_one(
    runs: Runs, tmp_path: Path
) -> None:
    whole, table = runs.uninterrupted("OmiAD")
    part = runs.interrupted("OmiAD", f"{tmp_path}/0", SignalAt("on_train_epoch_end", 0))
    later = SignalAt("on_before_optimizer_step", 2)
    part = runs.interrupted("OmiAD", f"{tmp_path}/1", later, ckpt_path=part)
    end = runs.fit("OmiAD", f"{tmp_path}/2", ckpt_path=part)
    assert differences(whole, contents(end)) == []
    assert rows(*(tmp_path / f"{i}" for i in range(3))) == table


def test_a_run_that_is_interrupted_in_its_calibration_ends_when_it_is_resumed(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, table = runs.uninterrupted("AMDM")

    def calibrate(module: TrainingModule, *, brief: bool = False) -> None:
        if not brief:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "calibrate", calibrate)
        part = runs.interrupted("AMDM", f"{tmp_path}/part")
    end = runs.fit("AMDM", f"{tmp_path}/end", ckpt_path=part)
    assert "Nothing was left to train" in caplog.text
    assert differences(whole, contents(end)) == []
    assert rows(tmp_path / "part", tmp_path / "end") == table


@pytest.mark.parametrize("stage", ["AMDM", pytest.param("OmiAD", marks=pytest.mark.slow)])
def test_epochs_that_are_resumed_in_their_middle_see_each_image_once(
    runs: Runs, tmp_path: Path, stage: str
) -> None:
    length = {"max_steps": -1, "max_epochs": 3}
    whole = runs.fit(stage, f"{tmp_path}/whole", **length)
    stop = SignalAt("on_before_optimizer_step", 2)
    part = runs.interrupted(stage, f"{tmp_path}/part", stop, **length)
    end = runs.fit(stage, f"{tmp_path}/end", ckpt_path=part, **length)
    assert differences(contents(whole), contents(end)) == []


def test_the_log_says_how_to_resume(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = runs.interrupted("AMDM", f"{tmp_path}/part", SignalAt("on_before_backward", 1))
    assert f"Interrupted at step 2 of 5. Resume with: omiad fit --ckpt_path {part}" in caplog.text


def test_a_signal_before_training_stops_at_once(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = runs.interrupted("AMDM", f"{tmp_path}/part", SignalAt("on_fit_start", 0))
    assert not part.exists()
    assert "Interrupted before training. Features that were computed are kept" in caplog.text


def test_accumulated_gradients_are_never_interrupted(runs: Runs, tmp_path: Path) -> None:
    options = {"accumulate_grad_batches": 2}
    whole = runs.fit("AMDM", f"{tmp_path}/whole", **options)
    part = runs.interrupted("AMDM", f"{tmp_path}/p", SignalAt("on_train_batch_end", 2), **options)
    end = runs.fit("AMDM", f"{tmp_path}/end", ckpt_path=part, **options)
    assert differences(contents(whole), contents(end)) == []


def test_the_second_ctrl_c_stops_at_once_but_an_echo_of_the_first_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with StopRequests() as requests:
        requests.is_deferred = True
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        assert requests.number == signal.SIGINT
        now += 5
        signal.raise_signal(signal.SIGTERM)  # a launcher repeats itself
        now += 5
        with pytest.raises(Interrupted) as stopped:
            signal.raise_signal(signal.SIGINT)
    assert stopped.value.code == 130


def test_a_job_in_the_background_goes_on_ignoring_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequests() as requests:
            signal.raise_signal(signal.SIGINT)
        assert requests.number == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_number_of_steps_between_checkpoints_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"--checkpoint\.every_n_steps.* -1"):
        LastCheckpoint(-1)


def test_a_loss_that_is_no_number_says_which_checkpoint_there_is(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = TrainingModule.check_finite

    def check_finite(module: TrainingModule, loss: torch.Tensor, name: str) -> None:
        check(module, loss * (float("nan") if module.global_step == 1 else 1), name)

    monkeypatch.setattr(TrainingModule, "check_finite", check_finite)
    with pytest.raises(InputError, match=r"The training loss became nan at step 1\."):
        runs.fit("AMDM", f"{tmp_path}/none")
    assert "This run had not written a checkpoint yet" in caplog.text
    with pytest.raises(InputError):
        runs.fit("AMDM", f"{tmp_path}/one", every_n_steps=1)
    assert (
        f"{tmp_path}/one/checkpoints/last.ckpt' is intact: the checkpoint of step 1." in caplog.text
    )


def test_a_lost_process_is_told_from_other_errors() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4711")
    assert is_lost_process(lost)
    assert not is_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_lost_process(ConnectionResetError("Connection reset by peer"))


def test_ctrl_c_in_another_command_is_a_status_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("omiad.cli.manual", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "omiad: interrupted\n"


def test_a_full_disk_keeps_the_checkpoint_before_and_names_its_path(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run/checkpoints/last.ckpt"
    write_checkpoint(path, {"step": 1})
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(InputError, match=f"The disk of '{path}' is full"):
            write_checkpoint(path, {"step": 2})
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["last.ckpt"]


def test_a_checkpoint_needs_no_room_in_the_temporary_folder(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    end = runs.fit("AMDM", f"{tmp_path}/run")
    assert contents(end)["global_step"] == STEPS["AMDM"]


RUN = """
from omiad.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("receivers", ["all", "first", "second"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_two_ranks_end_together_with_a_sentence(
    mvtec_root: Path, tmp_path: Path, receivers: str, number: signal.Signals
) -> None:
    if number == signal.SIGKILL and receivers != "second":
        pytest.skip("nobody is left to say anything, or only the first, which Lightning kills")
    script, run, log = tmp_path / "train.py", tmp_path / "run", tmp_path / "log"
    script.write_text(RUN)
    options = (
        f"{TINY} --run_dir={run} --data.root={mvtec_root} --data.cache_dir={tmp_path}/cache "
        "--trainer.devices=2 --trainer.strategy=ddp --trainer.max_steps=100000 "
        "--trainer.log_every_n_steps=1"
    )
    command = [sys.executable, str(script), "fit", *options.split()]
    with log.open("w") as file:
        first = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_for((run / "metrics.csv").exists, seconds=120)
        (second,) = children(first.pid)
        if receivers == "all":
            os.killpg(first.pid, number)
        else:
            os.kill(first.pid if receivers == "first" else second, number)
        status = first.wait(timeout=60)
        wait_for(lambda: not is_running(second), seconds=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGKILL)
    assert "Traceback" not in log.read_text()
    if number == signal.SIGKILL:
        assert status == 2
        assert "Another process of this run ended" in log.read_text()
    else:
        assert status == 128 + number
        assert contents(run / "checkpoints/last.ckpt")["global_step"] > 0


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def children(pid: int) -> list[int]:
    """Return the running children of a process that train, from the system's table."""
    table = subprocess.check_output(["ps", "-ww", "-e", "-o", "pid=,ppid=,args="], text=True)
    lines = [line.split(None, 2) for line in table.splitlines()]
    return [int(p) for p, parent, args in lines if int(parent) == pid and " fit " in args]


def is_running(pid: int) -> bool:
    table = subprocess.check_output(["ps", "-e", "-o", "pid=,stat="], text=True)
    states = dict(line.split(None, 1) for line in table.splitlines())
    return states.get(str(pid), "Z")[0] != "Z"
