"""tests/benchmarks/sweep_real.py, from photographs to its table, on a tiny data set."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from omiad.data.layouts.synthetic import synthesize

BENCH = Path(__file__).parent.parent / "benchmarks" / "sweep_real.py"
TRAINED = (
    "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.log_every_n_steps 1"
)
TINY = (
    "--model.network omiad.networks.unet_tiny --data.image_size 64 --data.feature_size 8 "
    f"--model.scoring.pool_size 8 --model.scoring.memory_size 50 {TRAINED} --trainer.max_steps 2"
)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sweep_real", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_experiment_that_is_not_listed_is_refused(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--root=real", "--weights=random", "--only", "amdm", "no_such"])
    assert "invalid choice: 'no_such'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "second"),
    [([], "no_memory"), (["--small"], "add_5e-5"), (["--small", "--test_split"], "asd_anchored")],
)
def test_experiments_are_trained_once_and_listed(
    bench: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    second: str,
) -> None:
    monkeypatch.syspath_prepend(BENCH.parent)  # as Python does for a script
    synthesize(
        tmp_path / "data",
        num_train=8,
        num_test_good=1,
        num_test_defective=1,
        image_size=64,
        categories=("bricks", "gear"),
    )
    given = [
        f"--root={tmp_path / 'data'}",
        "--backbone=test_efficientnet.r160_in1k",
        "--weights=random",
        f"--output={tmp_path / 'bench'}",
        f"--options={TINY} --data.cache_dir {tmp_path / 'cache'}",
        f"--distil_options={TRAINED} --trainer.max_steps 4",
        *options,
        "--only",
        "amdm",
        second,
        "--seeds",
        "0",
        "1",
    ]
    bench.main(given)
    table = capsys.readouterr().out
    assert (tmp_path / "bench" / "validation").exists() is ("--test_split" not in options)
    path = tmp_path / "bench" / "experiments.md"
    assert table.endswith(f"{path.read_text()}\ntable: {path}\n")
    rows = [line.strip("| ").split(" | ") for line in path.read_text().splitlines() if "|" in line]
    seeds = {row[0].replace("\\_", "_"): row[1] for row in rows[2:]}
    assert seeds == {"amdm": "2", second: "2"}
    # Each seed has one teacher, which is tested twice or distilled.
    fits = sorted(path.parent.name[:7] for path in (tmp_path / "bench").glob("*/finished.json"))
    assert fits == ["distil_", "distil_", "teacher", "teacher"][0 if options else 2 :]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "bench").rglob("*.ckpt")}
    assert len(list((tmp_path / "bench").glob("*/test_*/test/part_*/results.json"))) == 4
    bench.main(given)
    assert capsys.readouterr().out.splitlines()[-5:] == table.splitlines()[-5:]
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "bench").rglob("*.ckpt")}
