"""Folders of runs: one for each run, also when runs start together; a failed run leaves none."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from omiad.cli import main
from omiad.errors import InputError
from omiad.run_folder import claimed_folder

STAGE_1 = (
    "fit --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--data.backbone=test_efficientnet.r160_in1k --data.weights=random --data.image_size=32 "
    "--data.feature_size=8 --data.batch_size=4 --model=omiad.modules.AMDMModule "
    "--model.network=omiad.networks.UNet --model.network.width=8 "
    "--model.network.multipliers=[1,2] --model.network.num_blocks=1 "
    "--model.network.attention_factors=[2] --model.t_init=500"
)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_that_start_together_get_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ExitStack() as claims, ThreadPoolExecutor(8) as threads:
        claim = lambda _: claims.enter_context(claimed_folder(None, "amdm"))  # noqa: E731
        folders = {*threads.map(claim, range(24))}
    assert folders == {Path(f"runs/amdm/version_{i}") for i in range(24)}


def test_the_next_version_comes_after_the_last_even_if_one_in_between_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("version_0", "version_7", "version_x"):
        Path("runs/amdm", name).mkdir(parents=True)
    with claimed_folder(None, "amdm") as folder:
        assert folder == Path("runs/amdm/version_8")


def claim_and_leave(run_dir: Path) -> None:
    with claimed_folder(str(run_dir), "amdm"):
        pass


def write_and_fail(run_dir: Path, name: str) -> None:
    with claimed_folder(str(run_dir), "amdm") as folder:
        (folder / name).touch()
        raise ZeroDivisionError


def test_the_second_run_in_one_folder_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    with (
        claimed_folder(str(tmp_path / "run"), "amdm"),
        pytest.raises(InputError, match=r"Another process is writing to '.*run'"),
    ):
        claim_and_leave(tmp_path / "run")
    claim_and_leave(tmp_path / "run")


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "metrics.csv", "checkpoints"])
def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="already holds a run"):
        claim_and_leave(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_that_fails_leaves_nothing_but_what_it_has_computed(tmp_path: Path) -> None:
    for name, is_kept in (("config.yaml", False), ("metrics.csv", True)):
        with pytest.raises(ZeroDivisionError):
            write_and_fail(tmp_path / "run", name)
        assert (tmp_path / "run").exists() == is_kept


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--trainer.max_steps=0", "--trainer.max_steps 0"),
        ("--trainer.max_epochs=0", "--trainer.max_epochs 0"),
        ("--trainer.max_time=00:00:01:00", "--trainer.max_steps"),
        ("--trainer.max_steps=1 --trainer.limit_train_batches=0", "limit_train_batches 0"),
        ("--trainer.max_steps=1 --trainer.accumulate_grad_batches=0", "accumulate_grad_batches"),
        ("--trainer.max_steps=1 --trainer.gradient_clip_val=1", "--model.gradient_clip"),
        ("--trainer.max_steps=1 --trainer.log_every_n_steps=0", "log_every_n_steps"),
        ("--trainer.max_steps=1 --trainer.barebones=true", "--trainer.barebones"),
        ("--trainer.max_steps=1 --trainer.logger=false", "--trainer.logger"),
        ("--trainer.max_steps=1 --trainer.strategy=foo", "foo"),
        ("--trainer.max_steps=1 --trainer.devices=0", "--trainer options"),
        ("--trainer.max_steps=1 --data.root=gone", "'gone'"),
    ],
)
def test_a_run_that_cannot_work_is_one_sentence_and_leaves_no_folder(
    mvtec_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: str,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(f"{STAGE_1} --data.root={mvtec_root} {options}".split())
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
    assert files(tmp_path) == {}
    assert not Path("runs/amdm/version_0").exists()


def test_a_trial_inside_a_run_folder_changes_nothing(
    mvtec_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.ckpt").write_text("mine")
    (tmp_path / "run/metrics.csv").write_text("mine")
    monkeypatch.chdir(tmp_path / "run")
    cache = f"--data.cache_dir={tmp_path}/cache"
    before = files(tmp_path / "run")
    main(f"{STAGE_1} --data.root={mvtec_root} {cache} --trainer.fast_dev_run=true".split())
    assert files(tmp_path / "run") == before
