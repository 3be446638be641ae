"""`omiad benchmark`: what it measures, and what it writes."""

import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omiad import Detector
from omiad.benchmark import benchmark
from omiad.benchmark.machine import forget_peak, peak_megabytes
from omiad.benchmark.speed import PARTS
from omiad.benchmark.table import speed_table
from omiad.benchmark.timing import part_seconds, summary
from omiad.cli import main

CPU = torch.device("cpu")


def test_parts_and_percentiles_are_written_beside_the_papers_table(
    deciding: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = str(deciding / "model.ckpt"), tmp_path / "speed.json"
    copy = tmp_path / "copy.ckpt"  # any file that a detector loads may be measured beside it
    copy.write_bytes(Path(model).read_bytes())
    main(["benchmark", model, f"--export={copy}", "--photos", str(deciding / "photo.png"),
          "--batch_sizes", "3", "1", "--seconds=0.01", f"--output={output}"])  # fmt: skip
    record = json.loads(output.read_text())
    assert [speed["model"] for speed in record["models"]] == [model, str(copy)]
    for speed in record["models"]:
        assert [each["batch_size"] for each in speed["batches"]] == [1, 3]
        for each in speed["batches"]:
            assert {*each["parts_ms"]} == {"backbone", "network", "memory", "rest"}
            assert min(each["parts_ms"].values()) > 0
            times = each["scoring"]
            assert 0 < times["median_ms"] <= times["p95_ms"] <= times["p99_ms"]
            assert times["num_runs"] >= 5
    assert record["machine"]["torch"] == torch.__version__
    assert record["paper_table_2_seconds_per_batch_of_64"]["MVTec-AD"]["OmiAD"] == 0.0254
    printed = capsys.readouterr().out
    assert "seconds for a batch of 64" in printed
    assert "distance to the memory" in printed


def test_every_part_that_is_timed_has_a_row() -> None:
    times = {"median_ms": 9.0, "p95_ms": 9.0, "p99_ms": 9.0, "num_runs": 5}
    parts = dict.fromkeys((*PARTS, "rest"), 1.0)
    batch = {"batch_size": 1, "scoring": times, "parts_ms": parts, "peak_megabytes": None}
    speed = {"model": "m", "decode": times, "num_steps": 1, "batches": [batch]}
    assert speed_table(speed).row_count == len(parts) + 7  # type: ignore[arg-type]


def test_each_part_gets_its_own_seconds() -> None:
    class Sleep(nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: Tensor) -> Tensor:
            time.sleep(self.seconds)
            return x

    model = nn.Sequential(Sleep(0.02), Sleep(0.04), Sleep(0.01))
    parts = {"first": "0", "second": "1", "missing": "decoder"}
    found = part_seconds(lambda: model(torch.zeros(1)), model, parts, CPU)
    assert {*found} == {"first", "second", "rest"}
    assert 0.02 <= found["first"] < found["second"]
    assert found["rest"] >= 0.01
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_percentiles_are_those_of_the_runs() -> None:
    found = summary([each / 1000 for each in range(101)])
    expected = {"median_ms": 50, "p95_ms": 95, "p99_ms": 99, "num_runs": 101}
    assert found == pytest.approx(expected)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset")
def test_the_peak_of_memory_is_that_since_it_was_forgotten() -> None:
    def peak_of(megabytes: int) -> float:
        forget_peak(CPU)
        before = peak_megabytes(CPU)
        torch.ones(megabytes * 250_000)
        after = peak_megabytes(CPU)
        assert before is not None
        assert after is not None
        return after - before

    assert peak_of(400) > 300
    assert peak_of(40) < 100


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--batch_sizes", "0"], "--batch_sizes"),
        (["--batch_sizes", "one"], "one"),
        (["--seconds=0"], "--seconds"),
        (["--photos", "nowhere"], "nowhere"),
        (["--export=nothing.onnx"], "nothing.onnx"),
        (["--num_steps=0"], "0"),
        (["--output=there.json"], "there.json"),
    ],
)
def test_an_option_that_cannot_be_is_named_and_nothing_is_written(
    deciding: Path,
    tmp_path: Path,
    options: list[str],
    named: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.json").write_text("{}")
    with pytest.raises(SystemExit) as exit_info:
        main(["benchmark", str(deciding / "model.ckpt"), "--seconds=0.01", "--batch_sizes=1",
              "--photos", str(deciding / "photo.png"), *options])  # fmt: skip
    assert exit_info.value.code == 2
    assert named in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == [tmp_path / "there.json"]


def test_ten_steps_are_measured_as_ten(deciding: Path, tmp_path: Path) -> None:
    photo, output = str(deciding / "photo.png"), tmp_path / "speed.json"
    benchmark(str(deciding / "model.ckpt"), photos=[photo], batch_sizes=[1], seconds=0.01,
              num_steps=10, output=str(output))  # fmt: skip
    speed = json.loads(output.read_text())["models"][0]
    assert speed["num_steps"] == 10
    assert Detector.load(deciding / "model.ckpt").num_steps == 1
    parts = speed["batches"][0]["parts_ms"]
    assert parts["network"] > 3 * parts["backbone"]
