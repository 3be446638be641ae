"""The bench of experiments, from photographs to its table, on a data set of a few pixels."""

import importlib.util
from pathlib import Path

import pytest

from omiad.data.layouts.synthetic import synthesize

BENCH = Path(__file__).parent.parent / "benchmarks" / "sweep_real.py"
TINY = (
    "--model.network omiad.networks.unet_tiny --data.image_size 64 --data.feature_size 8 "
    "--model.scoring.pool_size 8 --model.scoring.memory_size 50 --trainer.max_steps 2 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false --trainer.log_every_n_steps 1"
)


@pytest.mark.slow
def test_experiments_are_trained_once_and_laid_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("sweep_real", BENCH)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
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
        "--only",
        "amdm",
        "no_memory",
        "--seeds",
        "0",
        "1",
    ]
    bench.main(given)
    table = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in table.splitlines() if line.strip()}
    assert rows["amdm"][1] == rows["no_memory"][1] == "2"
    # One fit for each seed, tested in two ways.
    fits = sorted((tmp_path / "bench").glob("teacher_*"))
    assert len(fits) == 2
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "bench").rglob("*.ckpt")}
    assert len(list((tmp_path / "bench").glob("teacher_*/test_*/test/part_*/results.json"))) == 4
    bench.main(given)
    assert capsys.readouterr().out.splitlines()[-3:] == table.splitlines()[-3:]
    assert written == {p: p.stat().st_mtime_ns for p in (tmp_path / "bench").rglob("*.ckpt")}
